SELECT id, title, body, category AS gold_category, urgency AS gold_urgency
FROM tickets
WHERE trim(coalesce(title, '') || coalesce(body, '')) <> ''  -- an empty ticket has nothing to label
  {% if params.day != 'all' %}AND day = '{{ params.day }}'{% endif %}
ORDER BY id
LIMIT {{ params.limit }}
