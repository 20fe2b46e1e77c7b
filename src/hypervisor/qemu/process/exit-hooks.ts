// What must be done when this process exits without its owners having been asked (process.exit, an uncaught error):
// synchronous, brief. A process that is killed does none of it; what it started ends by other means (see launch.ts).

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
