"""Label reviews with a job of its own per market, from a function that yields the rows.

Airflow names the tasks DE, FR and US. The rows are read in bounded memory, and they never go through XCom.
"""

from __future__ import annotations

from collections.abc import Iterator

from airflow.sdk import DAG, Asset, task

from airflow_provider_batch.presets import classify

# In your DAG, the function reads an API, a file, or anything else.
REVIEWS = {
    "DE": ["Der Kaktus blüht schon nach einer Woche.", "Der Topf kam zerbrochen an."],
    "FR": ["La plante est arrivée fanée."],
    "US": ["Great service!", "Does it need direct sunlight?"],
}

with DAG(
    "job_per_market",
    schedule=None,
    doc_md=__doc__,
    # A retry is safe: it continues the job, and sends nothing that was sent before.
    default_args={"retries": 3},
    tags=["batch", "example"],
) as dag:

    @task.openai_batch(
        custom_id="{{ row.id }}",
        table="review_labels",
        outlets=Asset("review_labels"),
        max_cost_usd=1,
        **classify("{{ row.text }}", labels=["praise", "complaint", "question"]),
    )
    def label_reviews(market: str) -> Iterator[dict[str, str]]:
        """Yield one dict per request."""
        for number, text in enumerate(REVIEWS[market]):
            yield {"id": f"{market}-{number}", "text": text}

    label_reviews.expand(market=["DE", "FR", "US"])
