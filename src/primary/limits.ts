// A hypervisor that does not answer is as good as dead, though we live: whoever waits for it waits for ever, and its
// domain stands still, unprotected and unheard. So each thing that is asked of it while a checkpoint is taken has a time.
// What takes longer than that fails with HUNG, and may still end in whatever way it likes.

import { withinAwake } from '../flow/awake.js';
import { HypervisorError, type SourceDomain } from '../hypervisor/port.js';

/** What a saver asks of a domain. Enabling the dirty log copies all memory at once, which takes its time (see below). */
const LIMITED: ReadonlySet<PropertyKey> = new Set<keyof SourceDomain>([
  ...(['prepareSuspend', 'suspend', 'stoodStill', 'resume', 'confirmMachine', 'emulatorContext'] as const),
  ...(['enableLogDirty', 'cleanLogDirty', 'peekLogDirty', 'disableLogDirty', 'copyPages'] as const),
  ...(['pageTypes', 'hvmContext', 'hvmParams', 'tscInfo', 'cpuPolicy'] as const),
]);
/** Slower than any memory, or disk that stands for it. */
const COPY_BYTES_PER_MS = 64 * 1024;

/** The domain, with a time for each call that a saver makes. `memoryBytes`: of its memory. */
export function withLimits<Limited extends SourceDomain>(
  domain: Limited,
  limitMs: number,
  memoryBytes: number,
): Limited {
  return new Proxy(domain, {
    get: (target, key): unknown => {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      const call = value as (...given: unknown[]) => unknown;
      if (!LIMITED.has(key)) return call.bind(target);
      const allowed = key === 'enableLogDirty' ? limitMs + memoryBytes / COPY_BYTES_PER_MS : limitMs;
      return (...given: unknown[]) =>
        within(allowed, String(key), Promise.resolve(call.apply(target, given)));
    },
  });
}

/** @throws HypervisorError HUNG if the work is not done in time */
export function within<Result>(limitMs: number, what: string, work: Promise<Result>): Promise<Result> {
  const message = `the hypervisor does not answer: ${what} took longer than ${limitMs} ms`;
  return withinAwake(limitMs, work, () => new HypervisorError('HUNG', message, { call: what, limitMs }));
}
