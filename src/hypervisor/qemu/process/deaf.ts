// For a process of ours whose end is the end of a pipe or of a file system, and nothing else: whoever ends a whole group
// of processes (a terminal, a service manager) means the one that owns it, and that one still needs it on its way out.
// And SIGUSR1 would make Node open its debugger.

const SIGNALS = ['SIGHUP', 'SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const;

/** They keep nothing alive. */
export function heedNoSignals(): void {
  for (const name of SIGNALS) process.on(name, () => undefined);
}
