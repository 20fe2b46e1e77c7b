// Two hosts in virtual time: both machines, each in a process that may be stopped for a while or killed, the network
// between them, and a guest on each. Only what moves is played: the hypervisors' stops, the saver, the link.
//
//   primary   stepLife, ledger ─▶ guest: start, halt (takes a while), unhalt  killed: its guest is stopped by others
//      ╎ messages, dials: late, lost, or cut for one side only
//   secondary stepSecondary ─▶ take-over: its guest runs

import {
  startHeartbeat,
  step as stepHeartbeat,
  type HeartbeatState,
} from '../../src/channel/link/heartbeat.js';
import { mandateOf } from '../../src/failover/mandate.js';
import { written, type Register, type RegisterWrite } from '../../src/failover/register.js';
import { enter, openLedger, type Entry } from '../../src/primary/ledger.js';
import { stepLife } from '../../src/primary/life.js';
import { birth, type LifeEffect, type LifeEvent, type LifeState } from '../../src/primary/life-state.js';
import { stepSecondary } from '../../src/secondary/vigil.js';
import {
  initialSecondaryState,
  type SecondaryEffect,
  type SecondaryEvent,
  type SecondaryState,
} from '../../src/secondary/vigil-state.js';
import { Clock, Process } from './virtual-process.js';
import { beatMsOf, stallMsOf, standstillMsOf } from '../../src/channel/link/heartbeat.js';

export interface Speeds {
  readonly latencyMs: number;
  /** Of the primary's hypervisor, to stop a guest. */
  readonly stopMs: number;
  readonly heartbeatIntervalMs: number;
  readonly heartbeatTimeoutMs: number;
  readonly reconnectWindowMs: number;
  /** Of the register, to grant the domain to the secondary. */
  readonly registerMs: number;
  /** False: as if the disks were not shared. */
  readonly shared: boolean;
}

const ALONE: Register = {
  ...{ generation: 1, mode: 'alone', owner: 'north', standby: null, stream: null, token: 'boot' },
};
const RESEND_MS = 10;
const CAPTURE_MS = 5;
const INTERVAL_MS = 20;

/** One end of a link: silence is death. */
interface End {
  up: boolean;
  heard: boolean;
  heartbeat: HeartbeatState;
  /** On their way to it, in order: in a partition they are sent again and again. */
  readonly inbox: (() => void)[];
}

interface Link {
  readonly streamUuid: string;
  readonly primary: End;
  readonly secondary: End;
}

export class TwoHosts {
  readonly clock = new Clock();
  readonly primary = new Process(this.clock);
  readonly secondary = new Process(this.clock);
  /** No message and no connection gets through. */
  partitioned = false;
  p: LifeState;
  s: SecondaryState;
  /** Of the primary's guest: when it stands still; Infinity: it runs. */
  #stillAt = 0;
  /** The moments at which both ran. */
  both = 0;
  takeovers = 0;

  readonly #speeds: Speeds;
  #link: Link | null = null;
  #links = 0;
  #ledger = openLedger(0);
  readonly #timers = new Map<string, number>();
  #armings = 0;

  constructor(speeds: Speeds) {
    this.#speeds = speeds;
    const { heartbeatTimeoutMs, shared, reconnectWindowMs } = speeds;
    this.p = birth(
      {
        startWithStandby: false,
        stallMs: stallMsOf(heartbeatTimeoutMs),
        standstill: shared ? { silenceMs: heartbeatTimeoutMs } : null,
        handOverTimeoutMs: 5000,
      },
      0,
      mandateOf('north', 'n', ALONE, false),
    );
    this.s = initialSecondaryState({ reconnectWindowMs, redialMinMs: 20, redialMaxMs: 200 });
    this.primary.every(beatMsOf(heartbeatTimeoutMs), () => {
      this.#enter({ kind: 'beat' });
      this.#tellPrimary({ kind: 'beat' });
      return true;
    });
    this.#tellPrimary({ kind: 'start', orphaned: false, running: false });
    this.#tellSecondary({ kind: 'start' });
  }

  get primaryRuns(): boolean {
    return this.clock.now < this.#stillAt;
  }

  get secondaryRuns(): boolean {
    return this.s.role === 'active';
  }

  /** The agent's end; its guest is stopped by the kernel or the guard, which takes a while. */
  killPrimary(afterMs: number): void {
    this.primary.alive = false;
    this.#stillAt = Math.min(this.#stillAt, this.clock.now + afterMs);
    const link = this.#link;
    if (link) this.clock.after(this.#speeds.latencyMs, () => this.#loseSecondary(link, 'LINK_CLOSED'));
  }

  /** The connection ends, for both or for the secondary only. */
  cut(sides: 'both' | 'secondary'): void {
    const link = this.#link;
    if (!link) return;
    this.#loseSecondary(link, 'LINK_CLOSED');
    if (sides === 'both') this.#losePrimary(link, 'LINK_CLOSED');
  }

  advance(ms: number): void {
    const end = this.clock.now + ms;
    while (this.clock.now < end) {
      this.clock.advance(Math.min(end, this.clock.now + 1));
      if (this.primaryRuns && this.secondaryRuns) this.both++;
    }
  }

  #tellPrimary(event: LifeEvent): void {
    this.primary.run(() => {
      const [state, effects] = stepLife(this.p, event, this.clock.now);
      this.p = state;
      for (const effect of effects) this.#performPrimary(effect);
    });
  }

  #enter(entry: Entry): void {
    this.#ledger = enter(this.#ledger, entry, this.clock.now, stallMsOf(this.#speeds.heartbeatTimeoutMs));
  }

  #tellSecondary(event: SecondaryEvent): void {
    this.secondary.run(() => {
      const [state, effects] = stepSecondary(this.s, event);
      this.s = state;
      for (const effect of effects) this.#performSecondary(effect);
    });
  }

  #performPrimary(effect: LifeEffect): void {
    const { now } = this.clock;
    switch (effect.kind) {
      case 'start-domain':
      case 'unhalt-domain':
        this.#stillAt = Infinity;
        return;
      case 'halt-domain':
      case 'let-go':
        this.#stillAt = Math.min(this.#stillAt, now + this.#speeds.stopMs);
        return;
      case 'replicate':
        this.#ledger = openLedger(now);
        this.#capture(effect.streamUuid);
        return;
      case 'drop-link':
        if (this.#link?.streamUuid === effect.streamUuid) this.#losePrimary(this.#link, effect.code);
        return;
      case 'restart':
      case 'hold':
      case 'pass':
      case 'discard':
      case 'expose':
      case 'hand-over':
      case 'hand-back':
      case 'handed-over':
      case 'hand-over-settled':
      case 'arm':
      case 'disarm':
      case 'bye':
      case 'withdraw':
      case 'transition':
      case 'finished':
        return; // moves nothing here
      case 'write':
        this.#write(effect.write);
        return;
    }
  }

  /** A register of its own, as without a witness: it does not go on alone. */
  #write(write: RegisterWrite): void {
    if (write.claim.mode === 'alone') return;
    this.#tellPrimary({ kind: 'answered', token: write.token, won: true, register: written(write) });
  }

  #performSecondary(effect: SecondaryEffect): void {
    switch (effect.kind) {
      case 'dial':
        this.#dial(effect.dial);
        return;
      case 'drop-link':
        if (this.#link?.streamUuid === effect.streamUuid) this.cut('both');
        return;
      case 'ask-witness':
        this.clock.after(this.#speeds.registerMs, () =>
          this.#tellSecondary({ kind: 'witness', answer: 'granted' }),
        );
        return;
      case 'take-over':
        this.takeovers++;
        this.#tellSecondary({ kind: 'started', epochsBack: 0, runsSinceMs: 0 });
        return;
      case 'arm':
        this.#arm(`secondary ${effect.timer}`, effect.delayMs, (lateMs) =>
          this.#tellSecondary({ kind: 'timer', timer: effect.timer, lateMs }),
        );
        return;
      case 'disarm':
        this.#timers.delete(`secondary ${effect.timer}`);
        return;
      case 'abort-dial':
      case 'restore':
      case 'adopt':
      case 'discard-filling':
      case 'discard-held':
      case 'bye':
      case 'report-completed':
      case 'report-failed':
      case 'report-impossible':
      case 'standby-lost':
      case 'transition':
      case 'finished':
        return; // moves nothing here
    }
  }

  #arm(name: string, delayMs: number, fire: (lateMs: number) => void): void {
    const arming = ++this.#armings;
    const dueMs = this.clock.now + delayMs;
    this.#timers.set(name, arming);
    this.clock.at(dueMs, () => {
      this.secondary.run(() => {
        if (this.#timers.get(name) !== arming) return;
        this.#timers.delete(name);
        fire(this.clock.now - dueMs);
      });
    });
  }

  #capture(streamUuid: string): void {
    this.clock.after(CAPTURE_MS, () => {
      this.primary.run(() => {
        if (this.p.stream?.streamUuid !== streamUuid) return;
        const epoch = this.#ledger.captured + 1;
        this.#enter({ kind: 'captured', epoch });
        this.#tellPrimary({ kind: 'captured', streamUuid, ledger: this.#ledger });
        this.#toSecondary(streamUuid, () => {
          this.#tellSecondary({ kind: 'acknowledged', streamUuid, epoch, digest: 0n });
          this.#toPrimary(streamUuid, () => this.#acknowledged(streamUuid, epoch));
        });
      });
    });
  }

  #acknowledged(streamUuid: string, epoch: number): void {
    if (this.p.stream?.streamUuid !== streamUuid) return;
    this.#enter({ kind: 'acknowledged', epoch });
    this.#tellPrimary({ kind: 'acknowledged', streamUuid, ledger: this.#ledger });
    const dueMs = Math.max(this.clock.now, this.#ledger.capturedAtMs + INTERVAL_MS);
    this.clock.at(dueMs, () => {
      this.primary.run(() => {
        if (this.p.stream?.streamUuid === streamUuid) this.#capture(streamUuid);
      });
    });
  }

  /** A message over the link, if that stands when it is read. */
  #toSecondary(streamUuid: string, read: () => void): void {
    this.#send(streamUuid, 'secondary', read);
  }

  #toPrimary(streamUuid: string, read: () => void): void {
    this.#send(streamUuid, 'primary', read);
  }

  #send(streamUuid: string, to: 'primary' | 'secondary', read: () => void): void {
    const link = this.#link;
    const from = to === 'primary' ? 'secondary' : 'primary';
    if (link?.streamUuid !== streamUuid || !link[from].up) return;
    link[to].inbox.push(read);
    this.clock.after(this.#speeds.latencyMs, () => this.#deliver(link[to], to));
  }

  #deliver(end: End, to: 'primary' | 'secondary'): void {
    if (end.inbox.length === 0) return;
    if (this.partitioned) {
      this.clock.after(RESEND_MS, () => this.#deliver(end, to));
      return;
    }
    this[to].run(() => {
      while (end.up) {
        const read = end.inbox.shift();
        if (!read) break;
        end.heard = true;
        read();
      }
    });
  }

  #dial(dial: number): void {
    const { latencyMs, heartbeatTimeoutMs } = this.#speeds;
    const fail = (code: string, afterMs: number): void =>
      this.clock.after(afterMs, () => this.#tellSecondary({ kind: 'dial-failed', dial, code }));
    fail('UNREACHABLE', heartbeatTimeoutMs / 2);
    if (this.partitioned) return;
    if (!this.primary.alive) {
      fail('REFUSED', latencyMs);
      return;
    }
    this.clock.after(latencyMs, () => {
      this.primary.run(() => {
        if (this.#link?.primary.up === true) fail('ALREADY_LINKED', latencyMs);
        else this.#welcome(dial);
      });
    });
  }

  #welcome(dial: number): void {
    const { heartbeatIntervalMs, heartbeatTimeoutMs, latencyMs, shared } = this.#speeds;
    const end = (up: boolean): End => ({
      up,
      heard: false,
      heartbeat: startHeartbeat(heartbeatIntervalMs, heartbeatTimeoutMs, this.clock.now),
      inbox: [],
    });
    const streamUuid = `S${++this.#links}`;
    const link: Link = { streamUuid, primary: end(true), secondary: end(false) };
    this.#link = link;
    this.#beat(link, 'primary');
    this.#tellPrimary({ kind: 'linked', streamUuid, pairing: { standby: 'south', stream: streamUuid } });
    const standstillMs = shared ? standstillMsOf(this.#speeds) : 0;
    this.clock.after(latencyMs, () => {
      this.secondary.run(() => {
        if (this.partitioned || this.s.dial !== dial) {
          if (!this.partitioned) this.clock.after(latencyMs, () => this.#losePrimary(link, 'LINK_CLOSED'));
          return;
        }
        link.secondary.up = true;
        link.secondary.heartbeat = startHeartbeat(heartbeatIntervalMs, heartbeatTimeoutMs, this.clock.now);
        const named = { streamUuid, owner: 'north', pairing: streamUuid };
        this.#tellSecondary({ kind: 'dialled', dial, ...named, continuous: true, standstillMs });
        if (link.primary.up) this.#beat(link, 'secondary');
        else this.#loseSecondary(link, 'LINK_CLOSED');
      });
    });
  }

  #beat(link: Link, side: 'primary' | 'secondary'): void {
    const end = link[side];
    const { streamUuid } = link;
    this[side].every(this.#speeds.heartbeatIntervalMs, () => {
      if (!end.up) return false;
      const [state, effects] = stepHeartbeat(end.heartbeat, {
        kind: 'tick',
        nowMs: this.clock.now,
        heard: end.heard,
      });
      end.heartbeat = state;
      end.heard = false;
      for (const { kind } of effects) {
        if (kind === 'send')
          this.#send(streamUuid, side === 'primary' ? 'secondary' : 'primary', () => undefined);
        else if (kind === 'heard' && side === 'primary') this.#tellPrimary({ kind: 'heard', streamUuid });
        else if (kind === 'lost') this.#silent(link, side);
      }
      return end.up;
    });
  }

  /** The one tells the other, if it can. */
  #silent(link: Link, side: 'primary' | 'secondary'): void {
    if (side === 'primary') {
      this.#toSecondary(link.streamUuid, () => this.#loseSecondary(link, 'HEARTBEAT_TIMEOUT'));
      this.#losePrimary(link, 'HEARTBEAT_TIMEOUT');
    } else {
      this.#toPrimary(link.streamUuid, () => this.#losePrimary(link, 'HEARTBEAT_TIMEOUT'));
      this.#loseSecondary(link, 'HEARTBEAT_TIMEOUT');
    }
  }

  #losePrimary(link: Link, code: string): void {
    if (!link.primary.up) return;
    link.primary.up = false;
    this.#tellPrimary({ kind: 'lost', streamUuid: link.streamUuid, code, message: code });
  }

  #loseSecondary(link: Link, code: string): void {
    if (!link.secondary.up) return;
    link.secondary.up = false;
    const { streamUuid } = link;
    this.#tellSecondary({ kind: 'lost', streamUuid, code });
    this.#tellSecondary({
      kind: 'restored',
      streamUuid,
      consistent: true,
      epochsBack: 0,
      code: '',
      message: '',
    });
  }
}
