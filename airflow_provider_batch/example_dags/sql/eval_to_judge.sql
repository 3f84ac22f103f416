{%- set judges = params.judges | default([params.judge]) %}
WITH judges(judge, verdict_number, suffix) AS (
    {%- for judge in judges %}
    {%- set is_last_judge, is_first_judge = loop.last, loop.first %}
    {%- for number in range(1, (params.verdicts | default(1)) + 1) %}
    SELECT '{{ judge }}', {{ number }}, '
    {%- if number > 1 %}@{{ judge }}@{{ number }}{% elif not is_first_judge %}@{{ judge }}{% endif %}'
    {{- "" if is_last_judge and loop.last else " UNION ALL" }}
    {%- endfor %}
    {%- endfor %}
), judged_cases AS (
    SELECT case_id, input, expected, CASE
        WHEN grader = 'judge' OR grader LIKE '%"judge"%' THEN 'judge'
        WHEN grader LIKE 'llm-rubric%' OR grader LIKE '%"llm-rubric%' THEN 'llm-rubric'
        WHEN grader LIKE 'factuality%' OR grader LIKE '%"factuality%' THEN 'factuality'
    END AS grader
    FROM eval_cases
)
SELECT a.custom_id || j.suffix AS id, a.case_id, a.repeat, j.judge, j.verdict_number, c.grader, c.input, c.expected, a.output
FROM eval_answers a
JOIN judged_cases c ON c.case_id = a.case_id
CROSS JOIN judges j
WHERE a.run = '{{ run_id | replace("'", "''") }}'
  AND a.variant = '{{ name | default(model) }}'
  AND a.outcome = 'succeeded'
  AND c.grader IS NOT NULL
ORDER BY a.custom_id, j.suffix
