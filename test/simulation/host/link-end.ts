// One end of a link, from the welcome to its end (channel/link/core.ts): lost comes once, and nothing after it.

import type { ByeReason } from '../../../src/channel/contract.js';
import { startHeartbeat, step, type HeartbeatState } from '../../../src/channel/link/heartbeat.js';
import type { End, Message } from '../world/connection.js';
import type { Params } from './cluster.js';

export interface LinkListener {
  readonly message: (message: Message & { readonly kind: 'checkpoint' | 'ack' | 'handed-over' }) => void;
  readonly heard: () => void;
  readonly bye: (reason: ByeReason) => void;
  readonly lost: (code: string) => void;
}

export class LinkEnd {
  readonly streamUuid: string;
  readonly peer: string;
  isLost = false;
  readonly #end: End;
  readonly #on: LinkListener;
  #heartbeat: HeartbeatState;
  #heard = false;

  constructor(end: End, peer: string, streamUuid: string, params: Params, on: LinkListener) {
    this.streamUuid = streamUuid;
    this.peer = peer;
    this.#end = end;
    this.#on = on;
    const { process } = end.seat;
    const { heartbeatIntervalMs, heartbeatTimeoutMs } = params;
    this.#heartbeat = startHeartbeat(heartbeatIntervalMs, heartbeatTimeoutMs, process.nowMs);
    end.receive = (message) => this.#receive(message);
    process.every(heartbeatIntervalMs, () => this.#tick(process.nowMs));
  }

  send(message: Message, takesMs = 0): void {
    if (!this.isLost) this.#end.send(message, takesMs);
  }

  bye(reason: ByeReason): void {
    this.send({ kind: 'bye', reason });
    this.#lose('LINK_CLOSED');
  }

  /** The other side is told the code, if it can be. */
  destroy(code: string): void {
    this.send({ kind: 'error', code });
    this.#lose(code);
  }

  #receive(message: Message): void {
    if (this.isLost) return;
    this.#heard = true;
    switch (message.kind) {
      case 'checkpoint':
      case 'ack':
      case 'handed-over':
        this.#on.message(message);
        return;
      case 'bye':
        this.#on.bye(message.reason);
        this.#lose('LINK_CLOSED');
        return;
      case 'error':
        this.#lose(message.code);
        return;
      case 'closed':
        this.#lose('LINK_CLOSED');
        return;
      case 'heartbeat':
      case 'hello':
      case 'welcome':
        return;
    }
  }

  #tick(nowMs: number): boolean {
    if (this.isLost) return false;
    const [state, effects] = step(this.#heartbeat, { kind: 'tick', nowMs, heard: this.#heard });
    this.#heartbeat = state;
    this.#heard = false;
    for (const { kind } of effects) {
      if (kind === 'send') this.send({ kind: 'heartbeat' });
      else if (kind === 'heard') this.#on.heard();
      else this.destroy('HEARTBEAT_TIMEOUT');
    }
    return !this.isLost;
  }

  #lose(code: string): void {
    if (this.isLost) return;
    this.isLost = true;
    this.#end.close();
    this.#on.lost(code);
  }
}
