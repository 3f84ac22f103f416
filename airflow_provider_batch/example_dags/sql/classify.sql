WITH texts AS (
    SELECT
        id, title, body, category,
        CASE WHEN length(coalesce(title, '') || coalesce(body, '')) > {{ params.long_text }} THEN 'large' ELSE 'small' END AS size,
        row_number() OVER (ORDER BY id) AS number
    FROM tickets
    WHERE trim(coalesce(title, '') || coalesce(body, '')) <> ''
)
SELECT id AS ticket, title, body, category AS gold_category, size, 'first' AS opinion
FROM texts
UNION ALL
SELECT id, title, body, category, CASE size WHEN 'large' THEN 'small' ELSE 'large' END, 'second'
FROM texts
WHERE number % {{ params.check_every }} = 0
ORDER BY ticket, opinion
