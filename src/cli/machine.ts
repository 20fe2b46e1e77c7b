// The embedded machine as `save` and `restore` use it: its console on standard output, its ticks counted, and an end
// to the waiting when it ends by itself or the user has had enough.

import { Subscription } from 'rxjs';
import { RomulusError } from '../errors.js';
import type { Domain } from '../hypervisor/port.js';
import { LineCutter } from './demo/screen.js';

/** Prints what the domain says, as it says it. */
export function showConsole(domain: Domain): Subscription {
  return domain.output$.subscribe((bytes) => process.stdout.write(bytes));
}

/**
 * Resolves when the domain has printed `count` tick lines from now on, or has shut down by itself; rejects when it
 * crashed or the signal was aborted. `count` null: only the end of the domain or of the user's patience.
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
