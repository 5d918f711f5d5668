// From a probability to a decision, and from figures to what they mean elsewhere. Pure functions.
//
// The service decides the same way by the same manifest; the page repeats it so that another
// operating point is a matter of a moment and of no second upload.

export const logit = (p) => Math.log(p / (1 - p));
export const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** `{positive, uncertain}` for a probability at a threshold, `margin` in logits. */
export function decide(probability, threshold, margin) {
  return {
    positive: probability >= threshold,
    uncertain: Math.abs(logit(probability) - logit(threshold)) < margin,
  };
}

/** The probabilities between which an answer is uncertain. */
export function uncertainZone(threshold, margin) {
  return [sigmoid(logit(threshold) - margin), sigmoid(logit(threshold) + margin)];
}

/** Bayes: `{ppv, npv}`, null where no answer of that kind would come. All in [0, 1]. */
export function predictiveValues(sensitivity, specificity, prevalence) {
  const truePositive = sensitivity * prevalence;
  const falsePositive = (1 - specificity) * (1 - prevalence);
  const trueNegative = specificity * (1 - prevalence);
  const falseNegative = (1 - sensitivity) * prevalence;
  const share = (right, wrong) => (right + wrong > 0 ? right / (right + wrong) : null);
  return { ppv: share(truePositive, falsePositive), npv: share(trueNegative, falseNegative) };
}

/** A probability calibrated at prevalence `from`, at prevalence `to`, if nothing else differs. */
export function atPrevalence(probability, from, to) {
  return sigmoid(logit(probability) - logit(from) + logit(to));
}
