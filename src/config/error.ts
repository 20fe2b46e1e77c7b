// What can be wrong with a configuration. All problems are told at once, one line each: the key, the value that was
// given, and what was expected.

import { RomulusError } from '../errors.js';

export type ConfigErrorCode =
  | 'UNREADABLE' // the file cannot be read
  | 'TOO_LARGE' // the file is larger than any configuration can be
  | 'BAD_YAML' // the file is not YAML, or uses what a configuration may not use (unknown tags, alias bombs)
  | 'INVALID' // it is YAML, but not a configuration
  | 'UNKNOWN_HOST'; // it is a configuration, but not of the host that is asked for

export interface ConfigProblem {
  /** The key, from the top: "domains[0].checkpoint.intervalMs"; "(top)" for the whole. */
  readonly path: string;
  /** The value that was given, printed short; null if there was none. */
  readonly given: string | null;
  readonly expected: string;
}

/** Facts: `file` (null if the configuration came from a program), `problems` (how many), `path` (the first key). */
export class ConfigError extends RomulusError<ConfigErrorCode> {
  readonly problems: readonly ConfigProblem[];

  constructor(
    code: ConfigErrorCode,
    source: string | null,
    problems: readonly ConfigProblem[],
    options?: ErrorOptions,
  ) {
    const lines = problems.map((problem) => `  ${describe(problem)}`);
    super(
      code,
      [`${source ?? 'the configuration'} is not usable:`, ...lines].join('\n'),
      { file: source, problems: problems.length, path: problems[0]?.path ?? null },
      options,
    );
    this.problems = problems;
  }
}

function describe(problem: ConfigProblem): string {
  const given = problem.given === null ? 'missing' : `${problem.given} given`;
  return `${problem.path}: ${given}, expected ${problem.expected}`;
}
