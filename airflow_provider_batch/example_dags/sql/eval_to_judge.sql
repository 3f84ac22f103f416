WITH judges(judge, number) AS (
    {%- for judge in params.judges %}
    SELECT '{{ judge }}', {{ loop.index }}{{ "" if loop.last else " UNION ALL" }}
    {%- endfor %}
)
SELECT a.custom_id || CASE WHEN j.number > 1 THEN '@' || j.judge ELSE '' END AS id,
    a.case_id, a.repeat, j.judge, c.input, c.expected, a.output
FROM eval_answers a
JOIN eval_cases c ON c.case_id = a.case_id
CROSS JOIN judges j
WHERE a.run = '{{ run_id | replace("'", "''") }}'
  AND a.variant = '{{ params.models[ti.map_index] }}'
  AND a.outcome = 'succeeded'
  AND (c.grader = 'judge' OR c.grader LIKE '%"judge"%')
ORDER BY a.custom_id, j.number
