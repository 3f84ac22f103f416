-- If more than half of the documents are gone at once, the source has more likely failed to load than been tidied.
SELECT CASE WHEN 2 * count(wanted.id) >= count(*) THEN 1 ELSE 0 END AS half_is_left
FROM document_vectors
LEFT JOIN ({% include 'sql/documents.sql' %}) AS wanted ON CAST(wanted.id AS varchar) = document_vectors.custom_id
WHERE document_vectors.kind = 'document'
