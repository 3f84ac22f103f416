SELECT a.custom_id AS id, a.case_id, a.repeat, c.input, c.expected, a.output
FROM eval_answers a
JOIN eval_cases c ON c.case_id = a.case_id
WHERE a.run = '{{ run_id | replace("'", "''") }}'
  AND a.variant = '{{ params.models[ti.map_index] }}'
  AND a.outcome = 'succeeded'
  AND (c.grader = 'judge' OR c.grader LIKE '%"judge"%')
ORDER BY a.custom_id
