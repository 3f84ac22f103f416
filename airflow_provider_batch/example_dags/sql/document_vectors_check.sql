-- Check that at least 8 of 10 questions have the right document among the three nearest. OpenAI's vectors have length 1,
-- so the dot product of two vectors is their cosine.
WITH numbers AS (
    {% if conn.warehouse.conn_type == 'postgres' %}
    SELECT custom_id, kind, answer, dimension, number
    FROM document_vectors, unnest(CAST(output AS real[])) WITH ORDINALITY AS elements (number, dimension)
    {% elif conn.warehouse.conn_type == 'duckdb' %}
    SELECT custom_id, kind, answer, unnest(generate_series(1, len(output))) AS dimension, unnest(output) AS number
    FROM document_vectors
    {% else %}
    SELECT custom_id, kind, answer, elements.key AS dimension, elements.value AS number
    FROM document_vectors, json_each(output) AS elements
    {% endif %}
),
near AS (
    SELECT
        question.custom_id AS question,
        CASE WHEN document.custom_id = question.answer THEN 1 ELSE 0 END AS is_answer,
        row_number() OVER (PARTITION BY question.custom_id ORDER BY sum(question.number * document.number) DESC) AS nth
    FROM numbers AS question
    JOIN numbers AS document ON document.dimension = question.dimension AND document.kind = 'document'
    WHERE question.kind = 'question'
    GROUP BY question.custom_id, question.answer, document.custom_id
)
SELECT CASE WHEN sum(is_answer) >= 0.8 * count(DISTINCT question) THEN 1 ELSE 0 END AS questions_find_their_document
FROM near
WHERE nth <= 3
