// How often what happens at random is tried: each run of the tests tries it a few times, ROMULUS_TEST_LONG=1 as often as it
// takes to believe it.

export const LONG = process.env['ROMULUS_TEST_LONG'] === '1';

export function times(few: number, many: number): number {
  return LONG ? many : few;
}

/** A test of what others show, too, in a smaller frame: in a long run only. */
export function whereTimeIs(title: string, test: Mocha.AsyncFunc): void {
  if (LONG) it(title, test);
}
