"""The FastAPI app of the plugin, which Airflow's API server mounts below /batch."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from airflow_provider_batch.exceptions import BatchError
from airflow_provider_batch.plugins import assets, routes
from airflow_provider_batch.plugins.evals import routes as evals
from airflow_provider_batch.plugins.job import routes as job
from airflow_provider_batch.plugins.jobs import routes as jobs

app = FastAPI(title="LLM batch", openapi_url=None, docs_url=None, redoc_url=None)
app.include_router(assets.router)
app.include_router(routes.router)
app.include_router(jobs.router)
app.include_router(evals.router)
app.include_router(job.router)


@app.exception_handler(RequestValidationError)
async def explain_invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
    """Return one sentence for each parameter that is missing or has the wrong type."""
    problems = [f"{problem['loc'][-1]}: {problem['msg']}." for problem in error.errors()]
    return JSONResponse({"detail": " ".join(problems)}, 400)


@app.exception_handler(BatchError)
async def explain_error(request: Request, error: BatchError) -> JSONResponse:
    """Return the message of an error while a job is read."""
    return JSONResponse({"detail": str(error)}, 503)
