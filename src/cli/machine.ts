// The embedded machine as `save` and `restore` use it: its console on standard output, its ticks counted, and an end
// to the waiting when it ends by itself or the user has had enough.

import { Subscription } from 'rxjs';
import { RomulusError } from '../errors.js';
import type { Domain } from '../hypervisor/port.js';
import { PAGE_SIZE } from '../stream/format.js';
import { LineCutter } from './text.js';

/** Prints what the domain says, as it says it. */
export function showConsole(domain: Domain, to: NodeJS.WritableStream = process.stdout): Subscription {
  return domain.output$.subscribe((bytes) => to.write(bytes));
}

/**
 * Resolves when the domain has printed `count` tick lines from now on, or has shut down by itself. `count` null: only
 * the end of the domain or of the user's patience.
 * @throws RomulusError CRASHED; the signal's reason
 */
export async function watchTicks(
  domain: Domain,
  count: number | null,
  interruption: AbortSignal,
): Promise<'ticked' | 'shutdown'> {
  return new Promise((resolve, reject) => {
    const subscription = new Subscription();
    const end = (how: () => void): void => {
      subscription.unsubscribe();
      interruption.removeEventListener('abort', interrupted);
      how();
    };
    const interrupted = (): void => end(() => reject(interruption.reason as Error));
    interruption.addEventListener('abort', interrupted);
    let seen = 0;
    const lines = new LineCutter((line) => {
      if (/^tick \d+ /.test(line) && ++seen === count) end(() => resolve('ticked'));
    });
    subscription.add(domain.output$.subscribe((bytes) => lines.push(Buffer.from(bytes).toString('latin1'))));
    subscription.add(
      domain.events$.subscribe((event) => {
        if (event.kind === 'shutdown') end(() => resolve('shutdown'));
        else end(() => reject(new RomulusError('CRASHED', `the machine crashed: ${event.reason}`)));
      }),
    );
    if (count === 0) end(() => resolve('ticked'));
    if (interruption.aborted) interrupted();
  });
}

/** Pages that the guest checks at each tick, if it need not rewrite more, and if the memory has room for them. */
const WORKING_SET_PAGES = 1024;

/** The load of the guest that Romulus brings; whether it fits the memory is checked where the machine is made. */
export function workingSet(
  memoryBytes: number,
  dirtyPages: number,
): { readonly dirtyPages: number; readonly workingSetPages: number } {
  const room = Math.floor(memoryBytes / PAGE_SIZE / 4);
  return { dirtyPages, workingSetPages: Math.max(1, dirtyPages, Math.min(WORKING_SET_PAGES, room)) };
}
