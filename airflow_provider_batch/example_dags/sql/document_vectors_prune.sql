DELETE FROM document_vectors
WHERE NOT EXISTS (
    SELECT 1
    FROM ({% include 'sql/documents.sql' %}) AS source
    WHERE CAST(source.id AS varchar) = document_vectors.custom_id
)
