WITH RECURSIVE times(repeat) AS (
    SELECT 1
    UNION ALL
    SELECT repeat + 1 FROM times WHERE repeat < {{ params.repeats }}
)
SELECT case_id || CASE WHEN repeat > 1 THEN '~' || CAST(repeat AS VARCHAR(9)) ELSE '' END AS id, case_id, repeat, input
FROM eval_cases
CROSS JOIN times
ORDER BY case_id, repeat
