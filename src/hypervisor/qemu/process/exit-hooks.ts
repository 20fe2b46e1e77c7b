// How processes of ours end. What must be done when this one exits without its owners having been asked (process.exit,
// an uncaught error) is done synchronously, and brief. A process that is killed does none of it; what it started ends by
// other means (see launch.ts).

const hooks = new Set<() => unknown>();

function runAll(): void {
  for (const hook of hooks) hook();
}

/** Returns how to take the hook back. */
export function onProcessExit(hook: () => unknown): () => void {
  if (hooks.size === 0) process.on('exit', runAll);
  hooks.add(hook);
  return () => {
    if (hooks.delete(hook) && hooks.size === 0) process.off('exit', runAll);
  };
}

const SIGNALS = ['SIGHUP', 'SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const;

/**
 * For a process of ours whose end is the end of a pipe or of a file system, and nothing else: whoever ends a whole
 * group of processes (a terminal, a service manager) means the one that owns it, and that one still needs it on its way
 * out. And SIGUSR1 would make Node open its debugger. They keep nothing alive.
 */
export function heedNoSignals(): void {
  for (const name of SIGNALS) process.on(name, () => undefined);
}
