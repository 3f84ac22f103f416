SELECT a.case_id || '@' || a.variant || '@' || b.variant AS id,
    a.case_id, a.variant AS first_variant, b.variant AS second_variant, c.input, a.output AS first_answer, b.output AS second_answer
FROM eval_answers a
JOIN eval_answers b ON b.run = a.run AND b.case_id = a.case_id AND b.repeat = a.repeat AND b.variant <> a.variant
JOIN eval_cases c ON c.case_id = a.case_id
WHERE a.run = '{{ run_id | replace("'", "''") }}' AND a.repeat = 1
  AND a.outcome = 'succeeded' AND b.outcome = 'succeeded'
ORDER BY a.case_id, a.variant, b.variant
