// Whether a guest lived on from its checkpoint, by what it printed. The guests of the fixtures print "TICK n OK" once a
// second after they have looked through their memory, "TICK n BAD" if a word of it is wrong, and say so when they wake
// up in another domain.

/** Ticks that a guest has to print: it goes through all of its memory between two. */
const TICKS_WANTED = 2;
const RESUMED = 'tiny: resumed in a new domain';

export type Verdict =
  { kind: 'waiting' } | { kind: 'alive'; ticks: readonly number[] } | { kind: 'wrong'; why: string };

/** @param lastTick the last one that the guest had printed at the checkpoint */
export function judgeConsole(console: string, lastTick: number): Verdict {
  // What follows the last end of line is half a line.
  const lines = console.replaceAll('\r', '').split('\n').slice(0, -1);
  const bad = lines.find((line) => line.includes('BAD'));
  if (bad !== undefined) return { kind: 'wrong', why: bad };
  const resumed = lines.indexOf(RESUMED);
  if (resumed < 0) return { kind: 'waiting' };
  const ticks: number[] = [];
  for (const line of lines.slice(resumed + 1)) {
    const expected = lastTick + 1 + ticks.length;
    if (line !== `TICK ${expected} OK`) {
      return { kind: 'wrong', why: `"${line}" where "TICK ${expected} OK" was due` };
    }
    ticks.push(expected);
  }
  return ticks.length < TICKS_WANTED ? { kind: 'waiting' } : { kind: 'alive', ticks };
}
