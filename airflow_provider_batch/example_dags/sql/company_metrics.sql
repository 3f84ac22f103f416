WITH by_quarter AS (
    SELECT
        company_id, quarter, revenue_usd, sensors, tickets, cancelled,
        lag(revenue_usd) OVER (PARTITION BY company_id ORDER BY quarter) AS revenue_before,
        lag(sensors) OVER (PARTITION BY company_id ORDER BY quarter) AS sensors_before,
        lag(tickets) OVER (PARTITION BY company_id ORDER BY quarter) AS tickets_before
    FROM company_metrics
)
SELECT
    id, name, country, revenue_usd, revenue_before, sensors, sensors_before, tickets, tickets_before, cancelled
FROM companies
JOIN by_quarter ON company_id = id
WHERE quarter = '{{ params.quarter }}'
ORDER BY id
