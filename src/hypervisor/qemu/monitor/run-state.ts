// Who stopped the guest: we, for a checkpoint, or somebody else (an operator, libvirt, an I/O error, a watchdog)? A guest
// that somebody else stopped stays stopped; one that somebody else let run in a pause of ours makes the checkpoint void.
//
//   QEMU says:   STOP or RESUME, whoever it was, in the order of what happened; why, before a STOP of its own
//   we ask:      [query-status, stop] in one write: if it stood still already, it was not our stop
//
// Two of somebody else's commands cannot be told from nothing, for QEMU says nothing of them: a `stop` between the two of
// that write (some 0.1 ms), and one in a pause of ours, which finds the guest stopped. What stops a guest by itself (an I/O
// error, a watchdog) is announced, at any time.
//
// And how it ends: a shutdown of its own, or QEMU's `quit`, is 'shutdown'; a panic and a signal to QEMU are 'crashed'.
// A reset is the guest's business.

import { BehaviorSubject, distinctUntilChanged, type Observable } from 'rxjs';
import type { DomainEvent } from '../../port.js';
import { isObject } from './qmp-parser.js';
import type { QmpEvent } from './qmp.js';

/** What QEMU says of itself: query-status. */
export interface RunStatus {
  readonly running: boolean;
  readonly status: string;
}

export function runStatusOf(answer: unknown): RunStatus {
  const { running, status } = isObject(answer) ? answer : {};
  return { running: running === true, status: typeof status === 'string' ? status : 'unknown' };
}

/** By the taking of a full state: by us. */
const HANDED_OVER: ReadonlySet<string> = new Set(['finish-migrate', 'postmigrate']);

/** It was stopped by us for a full state, which was taken, and has not run since. */
export function isHandedOver({ running, status }: RunStatus): boolean {
  return !running && HANDED_OVER.has(status);
}

export class RunState {
  readonly #stoppedBy: BehaviorSubject<string | null>;
  /** The present state first. */
  readonly stoppedBy$: Observable<string | null>;
  /** Commands of ours are under way: a STOP or RESUME may be ours. */
  #commanding = false;
  /** In a pause of ours. */
  #paused = false;
  /** Somebody else let it run in our pause. */
  #resumed = false;
  /** It is left stopped. */
  #isLeft = false;
  /** The last that was heard; null: nothing yet. */
  #heard: 'STOP' | 'RESUME' | null = null;
  /** QEMU has said why it will stop the guest, and has not done so yet. */
  #announced: string | null = null;

  constructor(stoppedBy: string | null) {
    this.#stoppedBy = new BehaviorSubject(stoppedBy);
    this.stoppedBy$ = this.#stoppedBy.pipe(distinctUntilChanged());
  }

  get stoppedBy(): string | null {
    return this.#stoppedBy.value;
  }

  get resumedByOthers(): boolean {
    return this.#resumed;
  }

  /** At the end of a pause of ours: nobody else has stopped it, or let it run, and we do not leave it stopped. */
  get isToResume(): boolean {
    return this.stoppedBy === null && !this.#resumed && !this.#isLeft;
  }

  /** No pause of ours, also one that is under way, lets it run any more. */
  leaveStopped(): void {
    this.#isLeft = true;
  }

  stopping(): void {
    this.#commanding = true;
    this.#resumed = false;
    this.#heard = null;
  }

  /** Our stop was answered; `before`: the state that it found. */
  stopped(before: RunStatus): void {
    this.#commanding = false;
    this.#paused = true;
    // After the stop was heard of, if there was one.
    this.#resumed = this.#heard === 'RESUME';
    this.#stoppedBy.next(this.#stopperBefore(before));
    this.#announced = null;
  }

  /** Our stop was not answered, or refused. */
  stopFailed(): void {
    this.#commanding = false;
  }

  resuming(): void {
    this.#commanding = true;
  }

  /** Our `cont` was answered (or not needed): our pause is over. */
  resumed(): void {
    this.#commanding = false;
    this.#paused = false;
    this.#resumed = false;
    if (this.#heard === 'STOP' && this.stoppedBy === null) this.#foundStopped('paused');
  }

  /** Returns what is to be asked of QEMU: why it stands still. */
  hear({ name, data }: QmpEvent): 'ask' | null {
    switch (name) {
      case 'BLOCK_IO_ERROR':
        if (data['action'] === 'stop') this.#announce('io-error');
        return null;
      case 'WATCHDOG':
        if (data['action'] === 'pause') this.#announce('watchdog');
        return null;
      case 'STOP':
        this.#heard = 'STOP';
        if (this.#commanding || this.#paused) return null;
        this.#foundStopped(this.#announced ?? 'paused');
        return this.stoppedBy === 'paused' ? 'ask' : null;
      case 'RESUME':
        this.#heard = 'RESUME';
        this.#announced = null;
        if (this.#commanding) return null;
        if (this.#paused) this.#resumed = true;
        this.#stoppedBy.next(null);
        return null;
      default:
        return null;
    }
  }

  /** QEMU's answer to the question, which may be late. */
  told({ running, status }: RunStatus): void {
    if (running || this.stoppedBy === null || this.#paused) return;
    this.#stoppedBy.next(HANDED_OVER.has(status) ? null : status);
  }

  /** Who had stopped it when our stop came. */
  #stopperBefore(before: RunStatus): string | null {
    if (before.running) return this.#announced;
    // Handed over by us, where somebody else had stopped it before: it was not let run since, or RESUME was heard.
    if (isHandedOver(before)) return this.#announced ?? this.stoppedBy;
    return this.stoppedBy ?? before.status;
  }

  /** A STOP follows, unless the guest stands still already. */
  #announce(status: string): void {
    if (this.#paused) this.#stoppedBy.next(status);
    else this.#announced = status;
  }

  #foundStopped(status: string): void {
    this.#announced = null;
    this.#stoppedBy.next(status);
  }
}

const SHUTDOWNS: ReadonlySet<string> = new Set([
  'guest-shutdown',
  'guest-reset', // QEMU was told to end at a reset
  ...['host-qmp-quit', 'host-ui'],
]);

/** What the event ends the domain with; null: it does not. */
export function endOf({ name, data }: QmpEvent): DomainEvent | null {
  if (name === 'GUEST_PANICKED') return { kind: 'crashed', reason: 'the guest panicked' };
  if (name !== 'SHUTDOWN') return null;
  const reason = String(data['reason']);
  return SHUTDOWNS.has(reason) ? { kind: 'shutdown' } : { kind: 'crashed', reason: `QEMU ends: ${reason}` };
}

/** By what the guest was reset; null: it was not. */
export function resetOf({ name, data }: QmpEvent): string | null {
  return name === 'RESET' ? String(data['reason']) : null;
}
