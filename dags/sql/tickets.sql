SELECT id, title, body, category AS gold_category, urgency AS gold_urgency
FROM tickets
WHERE trim(coalesce(title, '') || coalesce(body, '')) <> ''  -- there is nothing to label in an empty ticket
  {% if params.day != 'all' %}AND day = '{{ params.day }}'{% endif %}
ORDER BY id
LIMIT {{ params.limit }}
