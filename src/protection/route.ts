// Whom a standby dials. A pure function.

/**
 * The owner, if it is known; else one host after another, and now and then the others too.
 * `turn`: 0, 1, …; undefined: there is no other host.
 */
export function hostToDial(
  others: readonly string[],
  owner: string | null,
  only: boolean,
  turn: number,
): string | undefined {
  const known = owner !== null && others.includes(owner);
  if (known && (only || turn % 2 === 0)) return owner;
  return others[(turn >> (known ? 1 : 0)) % others.length];
}
