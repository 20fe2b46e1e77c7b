// A whole checkpoint in another domain: memory (copy.ts), and the context that belongs to it. It is taken between two
// commits, and goes on beside those that follow; one that comes to nothing, or takes the domain back, ends it.

import { asError } from '../errors.js';
import type { PageStamps } from '../hypervisor/page-stamps.js';
import type { TargetDomain } from '../hypervisor/port.js';
import { DomainType } from '../stream/format.js';
import type { RestoreContext } from './context.js';
import { DomainCopy } from './copy.js';
import { RestoreError } from './error.js';

/** A domain that was copied into another one. */
export interface CopiedCheckpoint {
  /** What it is of. */
  readonly epoch: number;
  /** Of its pages. */
  readonly stamps: PageStamps;
  /** Its context goes into the other one, which can be started then. @throws as the other one does */
  load(): Promise<void>;
}

/** Those of one restore. */
export class Copies {
  readonly #context: RestoreContext;
  /** While a checkpoint is committed; never rejects. */
  #committing: Promise<void> | null = null;
  #isOver = false;

  constructor(context: RestoreContext) {
    this.#context = context;
  }

  /** As RestoreSteps says. */
  async copyTo(into: TargetDomain): Promise<CopiedCheckpoint> {
    const context = this.#context;
    await this.#atBoundary();
    const { streamType, domainInfo } = context;
    // Elsewhere a frame is not its own number in another domain, or the domain runs.
    if (streamType === 'colo' || domainInfo.type !== DomainType.X86_HVM) {
      throw notCopied('only x86 HVM domains are copied, and not in COLO');
    }
    if (this.#isOver || !context.bufferAllRecords || context.copy !== null) {
      throw notCopied('there is no checkpoint that could be copied now');
    }
    const { domain, hvmContext, emulatorContext } = context;
    const epoch = context.epoch - 1;
    const state = emulatorContext && (domain.lastCheckpoint?.() ?? emulatorContext);
    const copy = new DomainCopy(domain, into, context.populatedPfns.below(context.p2mSize));
    context.copy = copy;
    // Asked for before anything of the next checkpoint can be written.
    const disks = into.takeDisks?.();
    try {
      await disks;
      await copy.run();
      // A commit that fails may have put pages back, past the copy.
      await this.#atBoundary();
      copy.requireGoing();
    } finally {
      context.copy = null;
    }
    const load = async (): Promise<void> => {
      if (hvmContext !== null) await into.setHvmContext(hvmContext);
      if (state !== null) await into.setEmulatorContext?.(state);
    };
    return { epoch, stamps: copy.stamps, load };
  }

  /** Does the commit. @throws as it does */
  async beside<C extends { readonly kind: string }>(commit: () => Promise<C>): Promise<C> {
    let over: () => void = () => undefined;
    this.#committing = new Promise((resolve) => (over = resolve));
    try {
      const committed = await commit();
      if (committed.kind === 'unusable') this.#end(notCopied('the domain went back to a checkpoint before'));
      return committed;
    } catch (error) {
      this.#end(asError(error));
      throw error;
    } finally {
      this.#committing = null;
      over();
    }
  }

  /** The domain is about to be completed, or is nobody's any more. */
  end(): void {
    this.#isOver = true;
    this.#end(notCopied('the stream is over'));
  }

  #end(why: Error): void {
    this.#context.copy?.end(why);
  }

  async #atBoundary(): Promise<void> {
    while (this.#committing !== null) await this.#committing;
  }
}

function notCopied(message: string): RestoreError {
  return new RestoreError('NOT_COPIED', message);
}
