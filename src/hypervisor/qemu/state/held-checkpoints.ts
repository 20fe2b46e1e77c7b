// The checkpoints of a standby: the last one, the last one that QEMU could load, and the ways between them.
//
//   accept(state) ─┬─ loaded on trial ──▶ this is the good one: what came before is forgotten
//        ▲         └─ not so often ─────▶ pages written since the good one are kept (undo)
//        └──────────────┘
//   ready to run:  loaded already? ─▶ yes
//                  load ─▶ in another QEMU ─▶ back to the good one ─▶ an error, and all is as before

import { Subject } from 'rxjs';
import { asError } from '../../../errors.js';
import { monotonicMs } from '../../../flow/clock.js';
import { HypervisorError } from '../../port.js';
import type { TrialLoads } from '../config.js';
import { joinState, splitState, type StateParts } from './memory-section.js';
import type { Occupant, Seat, Seated } from '../process/seat.js';
import { RUNNING, runStateOf } from './state-sections.js';
import { Undo } from '../memory/undo.js';

/** Of pages that are kept to go back to the last checkpoint that was loaded. */
const UNDO_BYTES_MAX = 128 * 1024 * 1024;
/** A QEMU that does not answer within it is replaced before it is told to run. */
const ANSWER_MS = 1000;

/** Of one core, for trial loads that are `auto`. */
const TRIAL_SHARE = 0.05;

/** A checkpoint's device state. */
export interface Held extends StateParts {
  /** As it was given. */
  readonly context: Uint8Array;
  /** By what the guest was stopped on the primary, if not by us: one that stood still is not let run. */
  readonly stoppedBy: string | null;
}

export interface HeldOptions {
  readonly pages: number;
  readonly loads: TrialLoads;
  /** There is a way back. There is none for disks, and so for memory beside them. */
  readonly goesBack: boolean;
  readonly warn: (warning: string) => void;
}

export class HeldCheckpoints {
  /** What the domain would be started from: after each change. */
  readonly current$ = new Subject<Held>();
  readonly #seat: Seat;
  readonly #occupant: Occupant;
  readonly #undo: Undo;
  readonly #pace: TrialPace;
  readonly #goesBack: boolean;
  readonly #warn: (warning: string) => void;
  #current: Held | null = null;
  /** The last one that was loaded; null: there is no way back. */
  #good: Held | null = null;
  /** Checkpoints since then. */
  #sinceGood = 0;
  #back = 0;
  #tried = false;

  constructor(seat: Seat, occupant: Occupant, { pages, loads, goesBack, warn }: HeldOptions) {
    this.#seat = seat;
    this.#occupant = occupant;
    this.#undo = new Undo(occupant.memory.tracking.ram, pages, UNDO_BYTES_MAX);
    this.#pace = new TrialPace(loads);
    this.#goesBack = goesBack && this.#pace.keepsUndo;
    // What it reads with takes as long to make as several checkpoints.
    if (this.#goesBack) occupant.memory.tracking.ram.prepare?.();
    this.#warn = warn;
  }

  get current(): Held | null {
    return this.#current;
  }

  /** All of the last one's state, as one. @throws HypervisorError WRONG_STATE if there is none */
  whole(): Uint8Array {
    if (this.#current !== null) return joinState(this.#current);
    throw new HypervisorError('WRONG_STATE', 'the domain has no checkpoint');
  }

  /** How many checkpoints before the last one the domain is, since a load has failed. */
  get back(): number {
    return this.#back;
  }

  /** The first one is always tried, and one behind which there would be no way back. */
  get isTrialDue(): boolean {
    const hasNone = this.#goesBack && this.#good === null;
    return !this.#tried || this.#pace.isDue(hasNone || this.#undo.overflown);
  }

  /** Keeping what memory was takes as long as writing it. */
  giveUpWayBack(): void {
    this.#good = null;
    this.#undo.clear();
  }

  /** The frames are about to be written. @throws HypervisorError FAILED */
  async writing(gfns: Uint32Array, count: number): Promise<void> {
    if (this.#good !== null) await this.#undo.keep(gfns, count);
  }

  /**
   * Memory is complete, and this is the device state that belongs to it.
   * @throws HypervisorError BAD_CONTEXT if it is none: then back to the good one
   */
  async accept(context: Uint8Array): Promise<Held> {
    if (this.#current?.context === context) return this.#current;
    this.#sinceGood++;
    this.#back = 0;
    let parts: StateParts;
    try {
      parts = splitState(context);
    } catch (error) {
      this.#current = null;
      await this.#goBack();
      throw error;
    }
    const { memory, devices } = parts;
    const runState = runStateOf(devices);
    return this.#become({
      context,
      memory: memory ?? this.#current?.memory ?? null,
      devices,
      stoppedBy: runState === RUNNING ? null : runState,
    });
  }

  /** Loads it to see whether it can be; if it cannot, goes back to the one that could. @throws as load() */
  async try(held: Held): Promise<void> {
    const started = monotonicMs();
    try {
      await this.load(held);
    } catch (error) {
      if (!isRefusal(error)) {
        // No QEMU could be had for it now: that says nothing of the checkpoint. The first one must be seen to work.
        if (!this.#tried) throw error;
        this.#warn(`a checkpoint could not be loaded on trial: ${asError(error).message}`);
        return;
      }
      await this.#goBack();
      throw error;
    } finally {
      this.#pace.took(monotonicMs() - started);
    }
  }

  isLoaded(held: Held): boolean {
    return this.#seat.of(this.#occupant)?.loader.holds === held;
  }

  /** Into the QEMU that is there, or else into another one. @throws as the second one */
  async load(held: Held): Promise<Seated> {
    try {
      return await this.#loadOnce(held);
    } catch (error) {
      this.#warn(`the QEMU that stood by is replaced: ${asError(error).message}`);
      await this.#seat.clear(this.#occupant);
    }
    return this.#loadOnce(held);
  }

  /**
   * A QEMU that holds the last checkpoint, or the good one if it does not take that. If it takes neither, all is as it was.
   * @throws as load() for the last one, or HypervisorError WRONG_STATE if there is none
   */
  async readyToRun(): Promise<Seated> {
    this.#back = 0;
    const held = this.#current;
    if (!held) throw new HypervisorError('WRONG_STATE', 'the domain has no context to start from');
    try {
      return await this.load(held);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      return this.#readyToRunBefore(asError(error));
    }
  }

  /** The domain runs: nothing is held for it any more. */
  end(): void {
    this.#current = this.#good = null;
    this.#undo.free();
  }

  async #readyToRunBefore(why: Error): Promise<Seated> {
    const good = this.#good;
    const back = this.#sinceGood;
    await this.#seat.clear(this.#occupant);
    if (good === null || back === 0 || this.#undo.overflown) throw why;
    await this.#undo.swap();
    try {
      const seated = await this.#loadOnce(good);
      this.#become(good);
      this.#back = back;
      this.#warn(`taken over from ${back} checkpoint(s) before the last: ${why.message}`);
      return seated;
    } catch (error) {
      await this.#seat.clear(this.#occupant);
      await this.#undo.swap();
      if (why instanceof HypervisorError) why.suppressed.push(asError(error));
      throw why;
    }
  }

  async #loadOnce(held: Held): Promise<Seated> {
    const seated = await this.#seat.claim(this.#occupant);
    // One that hangs, or has just died, must not be told to run: it might do so when nobody wants it any more.
    if (seated.loader.holds === held) await seated.machine.qmp.execute('query-status', undefined, ANSWER_MS);
    else await seated.loader.load(held, this.#occupant.reset);
    this.#occupant.loaded();
    this.#tried = true;
    if (this.#goesBack) this.#good = held;
    this.#sinceGood = 0;
    this.#undo.clear();
    return seated;
  }

  /** To the last checkpoint that was loaded, for good, if there is a way. */
  async #goBack(): Promise<void> {
    const good = this.#good;
    if (good === null || good === this.#current || this.#undo.overflown) return;
    await this.#seat.clear(this.#occupant);
    await this.#undo.swap();
    this.#undo.clear();
    this.#become(good);
    this.#back = this.#sinceGood;
    this.#sinceGood = 0;
  }

  #become(held: Held): Held {
    this.#current = held;
    this.current$.next(held);
    return held;
  }
}

/** QEMU has seen the state, and does not take it. */
function isRefusal(error: unknown): boolean {
  return error instanceof HypervisorError && error.code === 'BAD_CONTEXT';
}

/** Which checkpoints are loaded on trial: all, or as many as cost no more than a share of a core. */
export class TrialPace {
  readonly #loads: TrialLoads;
  readonly #now: () => number;
  #nextAtMs = -Infinity;

  /** `now`: milliseconds, monotonic. */
  constructor(loads: TrialLoads, now: () => number = monotonicMs) {
    this.#loads = loads;
    this.#now = now;
  }

  /** Whether there is a way back to keep: there is none where only the first checkpoint is loaded. */
  get keepsUndo(): boolean {
    return this.#loads !== 'first';
  }

  /** `must`: there would be no way back otherwise. */
  isDue(must: boolean): boolean {
    return this.#loads === 'each' || (this.#loads === 'auto' && (must || this.#now() >= this.#nextAtMs));
  }

  /** A load has taken so long. */
  took(ms: number): void {
    this.#nextAtMs = this.#now() + ms / TRIAL_SHARE;
  }
}
