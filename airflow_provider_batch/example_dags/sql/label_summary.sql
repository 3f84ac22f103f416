CREATE TABLE IF NOT EXISTS label_summary (
    job_uid varchar(32), run_id varchar(250), size varchar(10), model varchar(250), answers integer, succeeded integer,
    cost_usd numeric(18, 9), accuracy numeric(6, 4), second_opinions integer, agreement numeric(6, 4)
);

DELETE FROM label_summary WHERE job_uid = '{{ ti.xcom_pull('batch_job.land').job_uid }}';

INSERT INTO label_summary
SELECT
    own.job_uid, own.run_id, own.size, max(own.model), count(*),
    sum(CASE WHEN own.outcome = 'succeeded' THEN 1 ELSE 0 END),
    sum(own.cost_usd),
    avg(CASE WHEN own.category = own.gold_category THEN 1.0 ELSE 0.0 END),
    count(other.custom_id),
    avg(CASE WHEN other.category = own.category THEN 1.0 WHEN other.custom_id IS NOT NULL THEN 0.0 END)
FROM {{ params.table }} AS own
LEFT JOIN {{ params.table }} AS other
    ON other.ticket = own.ticket AND other.opinion <> own.opinion AND other.job_uid = own.job_uid
WHERE own.job_uid = '{{ ti.xcom_pull('batch_job.land').job_uid }}'
GROUP BY own.job_uid, own.run_id, own.size;

SELECT * FROM label_summary WHERE job_uid = '{{ ti.xcom_pull('batch_job.land').job_uid }}' ORDER BY size;
