SELECT id, 'document' AS kind, coalesce(title, '') || '. ' || coalesce(body, '') AS text, NULL AS answer
FROM documents
WHERE trim(coalesce(title, '') || coalesce(body, '')) <> ''
UNION ALL
SELECT id, 'question', question, document
FROM document_questions
