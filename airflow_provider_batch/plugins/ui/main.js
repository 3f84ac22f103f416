// The page "LLM batch" in Airflow: all jobs, the jobs of one run, one job, or the evals.
//
// Airflow loads this module as it is, without a build step, and draws the component that it leaves in
// `globalThis.AirflowPlugin`. React, the router, the components and the theme are those of Airflow's own page.

import { Evals } from "./evals.js";
import { JobPage } from "./job.js";
import { JobList } from "./jobs.js";

const { Box, ChakraProvider } = ChakraUI;
const { useEffect, useState } = React;
const { useSearchParams } = ReactRouterDOM;

const h = React.createElement;

/** Whether Airflow draws the component as it will draw it from now on; see `useSettled`. */
let isSettled = false;

/**
 * Return whether to draw the page yet.
 *
 * Airflow draws a component that it has just loaded as a lazy one, and after the first change of the address as itself,
 * which would take the focus and everything typed. So the address is replaced by itself before anything is drawn.
 */
function useSettled() {
  const [parameters, setParameters] = useSearchParams();
  const [, setDrawn] = useState(isSettled);
  useEffect(() => {
    if (isSettled) return;
    isSettled = true;
    setParameters(parameters, { replace: true });
    setDrawn(true);
  }, []);
  return isSettled;
}

/** Draw the page with the theme of Airflow. */
function Page(props) {
  return h(ChakraProvider, { value: globalThis.ChakraUISystem }, useSettled() ? h(View, props) : null);
}

/**
 * Choose the view: on a task instance its job, on a run the jobs of the run, and on a page of its own what the query
 * string says.
 */
function View({ dagId, runId, taskId, mapIndex }) {
  const [parameters] = useSearchParams();
  const isTab = Boolean(dagId && runId);
  const job = isTab
    ? { dag_id: dagId, run_id: runId, task_id: taskId, map_index: mapIndexOf(mapIndex) }
    : {
        dag_id: parameters.get("dag_id"),
        run_id: parameters.get("run_id"),
        task_id: parameters.get("task_id"),
        map_index: mapIndexOf(parameters.get("map_index")),
      };
  const isEvals = !isTab && parameters.get("view") === "evals";
  return h(
    Box,
    {
      id: "llm-batch",
      as: isTab ? "div" : "main",
      p: { base: 3, md: 5 },
      maxW: "100rem",
      height: "100%",
      overflowY: "auto",
    },
    isEvals
      ? h(Evals)
      : job.dag_id && job.run_id && job.task_id
        ? h(JobPage, { key: JSON.stringify(job), job })
        : h(JobList, { run: isTab ? { dag_id: dagId, run_id: runId } : null }),
  );
}

/** Return a map index as a number, -1 for a task that is not mapped. */
function mapIndexOf(text) {
  return /^\d+$/.test(text ?? "") ? Number(text) : -1;
}

globalThis.AirflowPlugin = Page;
