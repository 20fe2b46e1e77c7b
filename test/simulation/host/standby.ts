// A standby (secondary/domain.ts, secondary.ts, standbys.ts, and StandbyPart of protection/parts.ts): the real step, and
// what it asks for done to domains that are filled with counts.

import { takeOverWrite } from '../../../src/failover/mandate.js';
import { written, type Register, type RegisterWrite } from '../../../src/failover/register.js';
import { spreadMs } from '../../../src/flow/backoff.js';
import type { Of } from '../../../src/flow/kinds.js';
import { hostToDial } from '../../../src/protection/route.js';
import type { RoleEvent } from '../../../src/protection/role-state.js';
import { stepSecondary } from '../../../src/secondary/vigil.js';
import {
  TAKEN_BACK,
  initialSecondaryState,
  isBusy,
  type Held,
  type SecondaryEffect,
  type SecondaryEvent,
  type SecondaryState,
} from '../../../src/secondary/vigil-state.js';
import type { End, Greeting, Message } from '../world/connection.js';
import { Dial } from './dial.js';
import { helloOf } from './domain.js';
import type { AgentPorts, Estate, Part } from './cluster.js';
import { Claims } from './claims.js';
import { LinkEnd } from './link-end.js';
import { InTurn, Loop } from './loop.js';
import { RegisterClient } from './register-client.js';
import { Restorer, type Vessel, type Whole } from './restorer.js';

interface Link {
  readonly end: LinkEnd;
  /** What came before there was a restorer. */
  readonly arrived: Whole[];
  restorer: Restorer | null;
}

/** Of acknowledgements, at which the register is read ahead. */
const FORESEEN_SHARE = 0.1;

export class Standby implements Part {
  readonly #agent: AgentPorts;
  readonly #owner: () => string | null;
  readonly #news: (event: RoleEvent) => void;
  readonly #client: RegisterClient;
  readonly #loop: Loop<SecondaryState, SecondaryEvent, SecondaryEffect>;
  readonly #links = new Map<string, Link>();
  readonly #restores: InTurn<Of<SecondaryEffect, 'restore'>>;
  readonly #asks: InTurn<Of<SecondaryEffect, 'ask-witness'>>;
  readonly #timers = new Map<string, number>();
  #armings = 0;
  #dial: Dial | null = null;
  #tried = 0;
  #filling: Vessel | null = null;
  #held: Vessel | null = null;
  #estate: Estate | null = null;
  readonly #claims: Claims;
  #asked = 0;
  #stopped = false;
  #busy = false;

  /** `owner`: whom the register names, if it is known. */
  constructor(agent: AgentPorts, owner: () => string | null, news: (event: RoleEvent) => void) {
    const { cluster, process, host } = agent;
    const { reconnectWindowMs, redialMinMs, redialMaxMs } = cluster.params;
    this.#agent = agent;
    this.#owner = owner;
    this.#news = news;
    this.#client = new RegisterClient(cluster, host.name, process);
    this.#claims = new Claims(this.#client, agent.instance);
    this.#loop = new Loop<SecondaryState, SecondaryEvent, SecondaryEffect>(
      initialSecondaryState({ reconnectWindowMs, redialMinMs, redialMaxMs }),
      stepSecondary,
      (effect) => this.#perform(effect),
      () => this.#tellBusy(),
    );
    this.#restores = new InTurn((effect, done) => this.#restore(effect, done));
    this.#asks = new InTurn((effect, done) => this.#acquire(effect, done));
  }

  get state(): SecondaryState {
    return this.#loop.state;
  }

  get size(): number {
    let size = this.#restores.size + this.#asks.size + this.#links.size + this.#timers.size;
    for (const { arrived, restorer } of this.#links.values()) size += arrived.length + (restorer?.size ?? 0);
    return size;
  }

  begin(begun: () => void): void {
    const { process, cluster } = this.#agent;
    process.after(cluster.params.makeMs, () => {
      begun();
      if (!this.#stopped) this.#loop.tell({ kind: 'start' });
    });
  }

  stop(done: () => void): void {
    this.#stopped = true;
    this.#client.aborted = true;
    this.#loop.tell({ kind: 'stop' });
    for (const { end } of this.#links.values()) end.bye('shutdown');
    // What runs, and was not bequeathed, ends with us.
    this.#estate?.guest.over('let go');
    this.#agent.process.after(this.#agent.cluster.params.makeMs / 4, done);
  }

  bequeath(): Estate | null {
    const estate = this.#estate;
    this.#estate = null;
    return estate;
  }

  #tellBusy(): void {
    const busy = isBusy(this.#loop.state);
    if (busy !== this.#busy && !this.#stopped) this.#news({ kind: 'standby', busy });
    this.#busy = busy;
  }

  #perform(effect: SecondaryEffect): void {
    const { cluster, host, process } = this.#agent;
    switch (effect.kind) {
      case 'dial':
        this.#dialOut(effect);
        return;
      case 'abort-dial':
        this.#dial?.abort();
        return;
      case 'restore':
        this.#restores.do(effect);
        return;
      case 'adopt':
        this.#held = this.#filling;
        this.#filling = null;
        return;
      case 'discard-filling':
        this.#filling = null;
        return;
      case 'discard-held':
        cluster.story?.tell(host.name, 'drops the checkpoint that it holds');
        this.#held = null;
        return;
      case 'bye':
        this.#links.get(effect.streamUuid)?.end.bye(effect.reason);
        return;
      case 'drop-link':
        this.#links.get(effect.streamUuid)?.end.destroy(effect.code);
        return;
      case 'arm':
        this.#arm(effect.timer, effect.delayMs);
        return;
      case 'disarm':
        this.#timers.delete(effect.timer);
        return;
      case 'ask-witness':
        this.#asks.do(effect);
        return;
      case 'take-over':
        this.#takeOver();
        return;
      case 'transition':
        cluster.story?.tell(host.name, `standby: ${effect.reason}`);
        return;
      case 'finished':
        process.after(0, () => this.#finished());
        return;
      case 'report-completed':
      case 'report-failed':
      case 'report-impossible':
      case 'standby-lost':
        return; // for those who look at it
    }
  }

  #arm(timer: 'redial' | 'reconnect' | 'steady', delayMs: number): void {
    const { cluster, process } = this.#agent;
    const arming = ++this.#armings;
    const spread = timer === 'redial' ? spreadMs(delayMs, cluster.random()) : delayMs;
    const dueMs = process.nowMs + spread;
    this.#timers.set(timer, arming);
    process.after(spread, () => {
      if (this.#timers.get(timer) !== arming) return;
      this.#timers.delete(timer);
      this.#loop.tell({ kind: 'timer', timer, lateMs: Math.max(0, process.nowMs - dueMs) });
    });
  }

  #dialOut({ dial, held, shared }: Of<SecondaryEffect, 'dial'>): void {
    const { cluster, host } = this.#agent;
    const others = cluster.hosts.map(({ name }) => name).filter((name) => name !== host.name);
    const name = hostToDial(others, held?.owner ?? this.#owner(), held !== null, this.#tried++);
    if (name === undefined) throw new Error('a standby needs another host');
    this.#dial?.abort();
    this.#dial = new Dial(this.#agent, name, helloOf(host.name, held, shared), {
      linked: (end, welcome) => this.#linked(dial, end, welcome),
      failed: (code) => {
        if (code === 'UNKNOWN_DOMAIN' && !this.#stopped) this.#news({ kind: 'not-here', host: name });
        this.#loop.tell({ kind: 'dial-failed', dial, code });
      },
    });
  }

  #linked(dial: number, end: End, welcome: Greeting): void {
    const { cluster, host } = this.#agent;
    const { host: owner, streamUuid, pairing, continuous, resumes } = welcome;
    this.#dial = null;
    const link: Link = {
      arrived: [],
      restorer: null,
      end: new LinkEnd(end, owner, streamUuid, cluster.params, {
        message: (message) => {
          if (message.kind === 'handed-over') this.#loop.tell({ kind: 'handed-over', streamUuid });
          else receive(link, message);
        },
        heard: () => undefined,
        bye: (reason) => this.#loop.tell({ kind: 'bye', streamUuid, reason }),
        lost: (code) => {
          cluster.story?.tell(host.name, `loses its link to ${owner}: ${code}`);
          this.#links.delete(streamUuid);
          this.#loop.tell({ kind: 'lost', streamUuid, code });
          link.restorer?.lost();
        },
      }),
    };
    this.#links.set(streamUuid, link);
    const begins = resumes ? 'from what it has' : 'from the start';
    const kind = continuous ? `continuous, pairing ${pairing}, ${begins}` : begins;
    cluster.story?.tell(host.name, `linked to ${owner}: ${streamUuid}, ${kind}`);
    const silenceMs = cluster.params.heartbeatTimeoutMs;
    const said = { streamUuid, owner, pairing, continuous, resumes, standstillMs: 0, silenceMs };
    this.#loop.tell({ kind: 'dialled', dial, ...said });
  }

  #restore({ streamUuid, from }: Of<SecondaryEffect, 'restore'>, done: () => void): void {
    const { process, cluster } = this.#agent;
    const link = this.#links.get(streamUuid);
    if (!link) {
      const said = { epochsBack: 0, code: 'LINK_CLOSED', message: 'lost before it was begun' };
      this.#loop.tell({ kind: 'restored', streamUuid, consistent: false, ...said });
      done();
      return;
    }
    const { arrived, end } = link;
    const tell = (event: SecondaryEvent): void => {
      // Any may be the one that the domain is about to be handed over behind: what is known of the register may be old.
      if (event.kind === 'acknowledged' && cluster.random() < FORESEEN_SHARE) this.#claims.foresee();
      this.#loop.tell(event);
    };
    if (from && !this.#held) throw new Error('a stream goes on in a domain that is not there');
    const kept = from && this.#held && { vessel: this.#held, digest: from.digest };
    const before = arrived.splice(0);
    link.restorer = new Restorer(process, end, cluster, before, kept, tell, done);
    if (!kept) this.#filling = link.restorer.vessel;
  }

  /** As StandbyPart does it. */
  #acquire({ held, handedOver }: Of<SecondaryEffect, 'ask-witness'>, done: () => void): void {
    const { host, instance, cluster } = this.#agent;
    const answer = (said: 'granted' | 'denied' | 'unknown'): void => {
      cluster.story?.tell(host.name, `may it take over? ${said}`);
      this.#loop.tell({ kind: 'witness', answer: said });
      done();
    };
    const token = (): string => `${instance}-take-${++this.#asked}`;
    if (cluster.plant === 'takeover-unasked') {
      const claim = { mode: 'alone', owner: host.name, standby: null, stream: null } as const;
      this.#claims.won(written({ expected: cluster.witness.register, claim, token: token() }), held);
      answer('granted');
      return;
    }
    this.#claims.acquire(
      held,
      (register) => this.#takeOverWrite(register, held, handedOver, token()),
      handedOver,
      answer,
    );
  }

  #takeOverWrite(
    register: Register | null,
    held: Held,
    handedOver: boolean,
    token: string,
  ): RegisterWrite | null {
    const { host, cluster } = this.#agent;
    const { owner, pairing: stream } = held;
    if (cluster.plant === 'stale-standby' && register && register.owner !== host.name) {
      const claim = { mode: 'alone', owner: host.name, standby: null, stream: null } as const;
      return { expected: register, claim, token };
    }
    return takeOverWrite(register, host.name, { owner, stream, handedOver }, token);
  }

  #takeOver(): void {
    const { cluster, process, host } = this.#agent;
    const content = this.#held?.content ?? null;
    process.after(cluster.params.startMs, () => {
      if (this.#stopped) return;
      if (content === null || !this.#held) {
        const gone = { code: 'DOMAIN_GONE', message: 'there is no standby to be taken over' };
        this.#loop.tell({ kind: 'start-failed', ...gone, epochsBack: 0 });
        return;
      }
      // What is started, and is not heard before, is nothing here: it runs when it is confirmed.
      this.#claims.confirm((confirmed) => {
        if (this.#stopped) return;
        if (!confirmed) {
          const back = { code: TAKEN_BACK, message: 'its owner has taken it back' };
          this.#loop.tell({ kind: 'start-failed', ...back, epochsBack: 0 });
          return;
        }
        cluster.takeovers++;
        cluster.story?.tell(host.name, `TAKES OVER from ${cluster.history.name(content)}`);
        this.#held = null;
        this.#estate = this.#agent.takeOver(content);
        this.#loop.tell({ kind: 'started', epochsBack: 0, runsSinceMs: 0 });
      });
    });
  }

  #finished(): void {
    if (this.#stopped) return;
    const { role } = this.#loop.state;
    const { granted } = this.#claims;
    if (role === 'active' && granted) this.#news({ kind: 'took-over', register: granted });
    else this.#news({ kind: 'standby-over', how: role === 'ended' ? 'ended' : 'failed' });
  }
}

function receive({ arrived, restorer }: Link, message: Message): void {
  if (message.kind !== 'checkpoint') return;
  const { epoch, point, handOver } = message;
  if (restorer) restorer.receive({ epoch, point, handOver });
  else arrived.push({ epoch, point, handOver });
}
