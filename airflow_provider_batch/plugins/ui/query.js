// The query string of the page. What is shown is kept there, so it can be shared and the back button works.

const { useSearchParams } = ReactRouterDOM;

/**
 * Return the parameters of the query string, and a function that changes some of them.
 *
 * Parameters that are changed to an empty value are removed. A list starts at its first page again, unless `offset` is
 * among the changes.
 */
export function useQuery() {
  const [parameters, setParameters] = useSearchParams();
  const change = (changes, options) =>
    setParameters((last) => {
      const next = new URLSearchParams(last);
      for (const [name, value] of Object.entries({ offset: "", ...changes })) {
        if (value) next.set(name, value);
        else next.delete(name);
      }
      return next;
    }, options);
  return { parameters, change };
}
