-- If more than half of the documents disappear at once, the source has probably failed to load.
SELECT CASE WHEN 2 * count(source.id) >= count(*) THEN 1 ELSE 0 END AS half_remains
FROM document_vectors
LEFT JOIN ({% include 'sql/documents.sql' %}) AS source ON CAST(source.id AS varchar) = document_vectors.custom_id
WHERE document_vectors.kind = 'document'
