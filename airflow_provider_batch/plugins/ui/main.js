// The page "LLM batch" in Airflow: all jobs, or those of one run.
//
// Airflow loads this module as it is, without a build step, and draws the component that it leaves in
// `globalThis.AirflowPlugin`. React, the router, the components and the theme are those of Airflow's own page.

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

/** Draw the jobs: on a run those of the run, and on a page of its own all jobs. */
function View({ dagId, runId }) {
  const isTab = Boolean(dagId && runId);
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
    h(JobList, { run: isTab ? { dag_id: dagId, run_id: runId } : null }),
  );
}

globalThis.AirflowPlugin = Page;
