// "Did you mean …": the known word that is nearest to a misspelt one.

import { valueAt } from '../stream/bounds.js';

/** Null if nothing is near: a wrong hint is worse than none. */
export function nearest(word: string, known: readonly string[]): string | null {
  if (word.length > 64) return null;
  let best: string | null = null;
  // A third of the letters may be wrong; two of four, because swapped letters count twice.
  let bestDistance = (word.length === 4 ? 2 : Math.floor(word.length / 3)) + 1;
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    // "interval" for "intervalMs": a forgotten unit is the likeliest slip of all.
    const near = candidate.toLowerCase().startsWith(word.toLowerCase()) && word.length >= 3 ? 1 : distance;
    if (near < bestDistance) {
      best = candidate;
      bestDistance = near;
    }
  }
  return best;
}

/** Levenshtein's distance: insertions, deletions and substitutions. One row of the table is kept. */
function editDistance(from: string, to: string): number {
  const row = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let i = 1; i <= from.length; i++) {
    let diagonal = valueAt(row, 0);
    row[0] = i;
    for (let j = 1; j <= to.length; j++) {
      const above = valueAt(row, j);
      const cost = from[i - 1] === to[j - 1] ? 0 : 1;
      row[j] = Math.min(above + 1, valueAt(row, j - 1) + 1, diagonal + cost);
      diagonal = above;
    }
  }
  return valueAt(row, to.length);
}
