SELECT id, 'document' AS kind, title || '. ' || body AS text, NULL AS answer
FROM documents
WHERE trim(title || body) <> ''
UNION ALL
SELECT id, 'question', question, document
FROM document_questions
