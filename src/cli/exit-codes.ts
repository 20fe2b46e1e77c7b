// What the process's exit status says. Documented in the README; scripts rely on it.

export const ExitCode = {
  /** Done; for a service: stopped in order, or every domain has ended by itself. */
  OK: 0,
  /** The job failed: a domain failed, a demo's report is not ok, an image could not be written. */
  FAILED: 1,
  /** The command line, the configuration or the input file is wrong. Nothing was started. */
  USAGE: 2,
  /** A primary was fenced: the secondary has taken over. */
  FENCED: 3,
  /** Ended by Ctrl-C or SIGTERM before the job was done (128 + 2, as shells count). */
  INTERRUPTED: 130,
} as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];
