// One stream of an owner (primary/stream.ts, checkpoints.ts, capture.ts): the real ledger, and a saver that takes its time.
//
//   copied live ─▶ suspending ─ 0: hold ─ suspended: sealed ─▶ captured ─ sent ─▶ due? room? ─▶ suspending …
//                                                                └ acknowledged ─▶ released

import { ChannelError } from '../../../src/channel/contract.js';
import { silenceMsOf, stallMsOf } from '../../../src/channel/link/heartbeat.js';
import {
  enter,
  isHandedOver,
  isNext,
  markOfNext,
  openLedger,
  owed,
  type Entry,
  type Ledger,
} from '../../../src/primary/ledger.js';
import type { LifeEvent } from '../../../src/primary/life-state.js';
import type { Gate } from '../world/gate.js';
import type { Guest } from '../world/guest.js';
import type { Process } from '../world/process.js';
import type { Point } from '../checkers/history.js';
import type { Shared } from '../../../src/primary/shared.js';
import type { Cluster } from './cluster.js';
import { digestOf } from './domain.js';
import type { LinkEnd } from './link-end.js';

export interface CheckpointingPorts {
  readonly cluster: Cluster;
  readonly host: string;
  readonly process: Process;
  readonly link: LinkEnd;
  readonly guest: Guest;
  readonly gate: Gate;
  /** What the standby has. */
  readonly shared: Shared;
  /** The stream is over, whatever it still does. */
  readonly isLeft: () => boolean;
  readonly tell: (event: LifeEvent) => void;
  /** It has let go of the domain. */
  readonly over: () => void;
}

export class Checkpointing {
  readonly #ports: CheckpointingPorts;
  readonly #stallMs: number;
  /** Of the epochs that wait for their acknowledgement. */
  readonly #points = new Map<number, Point>();
  #ledger: Ledger;
  #capturing = true;
  #isDue = false;
  #over = false;
  #owed: number | null = null;
  #owedSinceMs = 0;

  constructor(ports: CheckpointingPorts) {
    this.#ports = ports;
    const { heartbeatIntervalMs, heartbeatTimeoutMs, copyMs } = ports.cluster.params;
    const late = ports.cluster.plant === 'late-ack';
    this.#stallMs = late ? Infinity : stallMsOf(heartbeatTimeoutMs);
    const silenceMs = late ? Infinity : silenceMsOf(heartbeatIntervalMs, heartbeatTimeoutMs);
    this.#ledger = openLedger(ports.process.nowMs, silenceMs);
    ports.process.after(copyMs, () => this.#capture());
  }

  get size(): number {
    return this.#points.size;
  }

  beat(): void {
    if (this.#isOver()) return;
    this.#enter({ kind: 'beat' });
    const { cluster, process } = this.#ports;
    if (this.#owed === null || process.nowMs - this.#owedSinceMs <= cluster.params.acknowledgeTimeoutMs)
      return;
    const message = `epoch ${this.#owed} was not acknowledged in time`;
    this.#end({ how: 'broken', code: 'ACKNOWLEDGE_TIMEOUT', message });
  }

  heard(): void {
    if (!this.#isOver()) this.#enter({ kind: 'heard' });
  }

  acknowledged(epoch: number): void {
    if (this.#isOver()) return;
    const { cluster, link, gate, shared, tell } = this.#ports;
    if (!this.#enter({ kind: 'acknowledged', epoch })) return;
    const point = this.#points.get(epoch);
    this.#points.delete(epoch);
    if (point) cluster.loss.acknowledged(point);
    shared.acknowledged(epoch);
    if (this.#ledger.release) gate.release(this.#ledger.release);
    tell({ kind: 'acknowledged', streamUuid: link.streamUuid, ledger: this.#ledger });
    this.#next();
  }

  handOver(): void {
    if (this.#isOver() || !this.#enter({ kind: 'hand-over' })) return;
    this.#next();
  }

  /** Whoever has left it lets it come to its end. */
  left(): void {
    if (!this.#capturing) this.#isOver();
  }

  #capture(): void {
    if (this.#isOver()) return;
    const { link, guest, gate, tell } = this.#ports;
    this.#capturing = true;
    if (guest.end !== null) {
      this.#end({ how: 'failed', code: 'FAILED', message: 'the domain crashed' });
      return;
    }
    if (!this.#enter({ kind: 'suspending' })) return;
    tell({ kind: 'suspending', streamUuid: link.streamUuid });
    tell({ kind: 'stopping', streamUuid: link.streamUuid });
    if (this.#ledger.captured < 0) gate.hold(() => this.#suspend());
    else this.#suspend();
  }

  #suspend(): void {
    const { cluster, process, guest, gate } = this.#ports;
    if (this.#isOver()) return;
    const epoch = this.#ledger.captured + 1;
    const point = guest.point;
    guest.running = false;
    gate.push(point.count);
    gate.seal(epoch, point.count);
    const isLast = markOfNext(this.#ledger) === 'last';
    process.after(cluster.params.pauseMs, () => {
      // Behind the last one it stands still, unless that was given up.
      if (guest.end === null && (!isLast || this.#isOver())) guest.running = true;
      if (!this.#isOver()) this.#captured(epoch, point);
    });
  }

  #captured(epoch: number, point: Point): void {
    const { cluster, process, link, shared, tell } = this.#ports;
    if (!this.#enter({ kind: 'captured', epoch })) return;
    this.#points.set(epoch, point);
    this.#capturing = false;
    const { streamUuid } = link;
    if (epoch === 0)
      cluster.story?.tell(
        this.#ports.host,
        `captures ${cluster.history.name(point)} as the first of ${streamUuid}`,
      );
    tell({ kind: 'captured', streamUuid, ledger: this.#ledger });
    shared.captured(epoch);
    shared.sent(epoch, digestOf(point));
    const handOver = isHandedOver(this.#ledger);
    link.send({ kind: 'checkpoint', epoch, point, handOver }, cluster.params.latencyMs);
    this.#isDue = false;
    process.after(cluster.params.checkpointIntervalMs, () => {
      this.#isDue = true;
      this.#next();
    });
  }

  /** Due, and there is room. */
  #next(): void {
    if (this.#capturing || !isNext(this.#ledger, this.#isDue, this.#ports.cluster.params.windowEpochs))
      return;
    this.#capture();
  }

  #enter(entry: Entry): boolean {
    const { nowMs } = this.#ports.process;
    try {
      this.#ledger = enter(this.#ledger, entry, nowMs, this.#stallMs);
    } catch (error) {
      if (!(error instanceof ChannelError)) throw error;
      this.#end({ how: 'broken', code: error.code, message: error.message });
      return false;
    }
    const due = owed(this.#ledger);
    if (due !== this.#owed) {
      this.#owed = due;
      this.#owedSinceMs = nowMs;
    }
    return true;
  }

  #end(end: (LifeEvent & { readonly kind: 'stream-over' })['end']): void {
    const { link, tell } = this.#ports;
    this.#close();
    tell({ kind: 'stream-over', streamUuid: link.streamUuid, end });
  }

  #isOver(): boolean {
    if (!this.#over && this.#ports.isLeft()) this.#close();
    return this.#over;
  }

  /** The next one begins when the connection is closed, too. */
  #close(): void {
    if (this.#over) return;
    this.#over = true;
    const { process, cluster, over } = this.#ports;
    process.after(2 * cluster.params.latencyMs, over);
  }
}
