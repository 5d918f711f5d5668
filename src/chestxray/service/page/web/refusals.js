// Refusals in words, and those that the reader may overrule: by which choice of the service's.
//
// Does not: overrule one (main.js does, when the reader says so).

const CHOICES = {
  not_a_chest_radiograph: "input_check",
  outside_population: "population",
  wrong_modality: "acquisition",
  wrong_body_part: "acquisition",
  wrong_view: "acquisition",
};

/** The choice of /predict by which a problem is overruled, or undefined. */
export const choiceAgainst = (problem) => CHOICES[problem?.code];

export const refusalTitle = ({ code, title }) =>
  code === "outside_population" ? "Patient of another age" : title;

/** What the reader should know before overruling a problem, as sentences. */
export function beforeOverruling(problem, { input_check: check }) {
  switch (choiceAgainst(problem)) {
    case "input_check":
      return (
        `Likeness ${problem.input_check.score.toFixed(2)}; accepted from ` +
        `${check.threshold.toFixed(2)}. This rule ${check.rule}, so it refuses some real ones ` +
        "too. The model has never seen anything like what it refuses, and its answer to it means " +
        "nothing."
      );
    case "population":
      return "The model is not meant for this age, and nobody has measured how it does there.";
    case "acquisition":
      return "The model learned from no such radiographs: its answer may mean nothing.";
    default:
      return "";
  }
}
