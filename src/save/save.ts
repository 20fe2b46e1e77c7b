// Saving a domain as libxc's save() does it: a loop over the steps (steps.ts) that asks its driver by callbacks.
//
//   ┌▶ capture ─┬─ plain ────────────────────────────────▶ end
//   │           └─ resume   send   checkpoint? ─ finish ─▶ end
//   └──────────────────────────── continue ◀─┘
//   COLO:          send   checkpoint?   resume   waitCheckpoint?

import { closing } from '../flow/closing.js';
import type { CheckpointDecision, SaveCallbacks } from './callbacks.js';
import type { SaveStepOptions } from './context.js';
import { SaveError } from './error.js';
import { openSave, type SaveResult, type SaveSteps } from './steps.js';

export type { SaveResult } from './steps.js';

export interface SaveOptions extends SaveStepOptions {
  readonly callbacks: SaveCallbacks;
}

/** What follows a captured epoch, until it is decided how to go on. */
type Turn = (steps: SaveSteps, epoch: number) => Promise<CheckpointDecision>;

/**
 * Saves a domain into the sink. A plain save leaves the domain suspended; a checkpointed one goes on until the
 * checkpoint callback ends it or the domain ends by itself. If it fails, it neither resumes nor destroys the domain:
 * whoever called knows whether it may run.
 * @throws SaveError, HypervisorError, StreamError, and whatever the sink or a callback fails with
 */
export async function saveDomain(options: SaveOptions): Promise<SaveResult> {
  const { streamType, callbacks } = options;
  const turn = streamType === 'colo' ? coloTurn(callbacks) : remusTurn(callbacks);
  const steps = await openSave(options);
  return closing(steps, async () => {
    for (let epoch = 0; ; epoch++) {
      if ((await steps.capture()) === 'gone') return steps.end('domain-gone');
      if (streamType === 'plain') return steps.end('complete');
      const decision = await turn(steps, epoch);
      if (decision === 'abort')
        throw new SaveError('ABORTED', `given up after checkpoint ${epoch}`, { epoch });
      if (decision === 'finish') return steps.end('finished');
    }
  });
}

/** The domain runs on at once, and the epoch leaves meanwhile. */
function remusTurn(callbacks: SaveCallbacks): Turn {
  return async (steps, epoch) => {
    await steps.resume();
    return callbacks.checkpoint(epoch, steps.send());
  };
}

/** The domain waits for the secondary, and both run on from the same state until they diverge. */
function coloTurn(callbacks: SaveCallbacks): Turn {
  const waitCheckpoint = callbacks.waitCheckpoint?.bind(callbacks);
  if (waitCheckpoint === undefined) {
    throw new SaveError('BAD_OPTIONS', 'a COLO save needs the callback waitCheckpoint');
  }
  return async (steps, epoch) => {
    const decision = await callbacks.checkpoint(epoch, steps.send());
    if (decision === 'abort') return decision;
    await steps.resume();
    return decision === 'finish' ? decision : waitCheckpoint();
  };
}
