// The owner of a domain (primary/domain.ts, primary.ts, and OwnerPart of protection/parts.ts): the real step, and what it
// asks for done to a guest that counts.

import { ChannelError, type Hello, type SharedPoint } from '../../../src/channel/contract.js';
import { beatMsOf, stallMsOf } from '../../../src/channel/link/heartbeat.js';
import { isAlone, mandateOf } from '../../../src/failover/mandate.js';
import type { Register, RegisterWrite } from '../../../src/failover/register.js';
import { written } from '../../../src/failover/register.js';
import { stepLife } from '../../../src/primary/life.js';
import { birth, type LifeEffect, type LifeEvent, type LifeState } from '../../../src/primary/life-state.js';
import { judgeHello } from '../../../src/primary/welcome.js';
import type { RoleEvent } from '../../../src/protection/role-state.js';
import type { End, Greeting, Message } from '../world/connection.js';
import type { Gate } from '../world/gate.js';
import type { Guest } from '../world/guest.js';
import { Checkpointing } from './checkpointing.js';
import type { AgentPorts, Estate, Part } from './cluster.js';
import { LinkEnd } from './link-end.js';
import { InTurn, Loop, OneTimer } from './loop.js';
import { RegisterClient } from './register-client.js';
import { DOMAIN, INFO, sharedCounts } from './domain.js';

/** A domain that ran for so long has started well. */
const STEADY_MS = 60_000;

export class Owner implements Part {
  readonly #agent: AgentPorts;
  readonly #news: (event: RoleEvent) => void;
  readonly #client: RegisterClient;
  /** What the standby has. */
  readonly #shared = sharedCounts();
  #handOvers = 0;
  readonly #late: OneTimer;
  /** From where each stream goes on. */
  readonly #from = new Map<string, SharedPoint | null>();
  readonly #loop: Loop<LifeState, LifeEvent, LifeEffect>;
  readonly #links = new Map<string, LinkEnd>();
  readonly #streams: InTurn<string>;
  readonly #writes: InTurn<RegisterWrite>;
  readonly #sinceMs: number;
  readonly #estate: Estate | null;
  #guest: Guest | null = null;
  #gate: Gate | null = null;
  #stream: Checkpointing | null = null;
  #offered = false;
  #stopped = false;

  /** `estate`: what runs already, and is found, or taken over. */
  constructor(
    agent: AgentPorts,
    register: Register,
    estate: Estate | null,
    news: (event: RoleEvent) => void,
  ) {
    const { cluster, process, host, instance } = agent;
    const { heartbeatTimeoutMs } = cluster.params;
    this.#agent = agent;
    this.#news = news;
    this.#estate = estate;
    this.#sinceMs = process.nowMs;
    this.#client = new RegisterClient(cluster, host.name, process);
    const settings = {
      startWithStandby: false,
      stallMs: stallMsOf(heartbeatTimeoutMs),
      standstill: null,
      handOverTimeoutMs: 5000,
    } as const;
    const mandate = mandateOf(host.name, `${instance}-${register.generation}`, register);
    this.#loop = new Loop<LifeState, LifeEvent, LifeEffect>(
      birth(settings, process.nowMs, mandate),
      (state, event) => stepLife(state, event, process.nowMs),
      (effect) => this.#perform(effect),
      () => this.#plantReleaseEarly(),
    );
    this.#late = new OneTimer(process, () => this.#loop.tell({ kind: 'timer', timer: 'hand-over' }));
    this.#streams = new InTurn((streamUuid, done) => this.#replicate(streamUuid, done));
    this.#writes = new InTurn((write, done) => this.#write(write, done));
    process.every(beatMsOf(heartbeatTimeoutMs), () => {
      this.#stream?.beat();
      this.#loop.tell({ kind: 'beat' });
      return !this.#stopped;
    });
  }

  /** An operator asks for it. */
  handOver(): void {
    this.#loop.tell({ kind: 'hand-over', id: ++this.#handOvers, to: null });
  }

  get state(): LifeState {
    return this.#loop.state;
  }

  get size(): number {
    const { letOut } = this.#loop.state;
    const gate = this.#gate?.size ?? 0;
    const work = this.#streams.size + this.#writes.size + this.#links.size + (this.#stream?.size ?? 0);
    return work + gate + letOut.streamsSince.length;
  }

  begin(begun: () => void): void {
    const { cluster, process } = this.#agent;
    process.after(this.#estate ? 0 : cluster.params.makeMs, () => {
      begun();
      if (this.#stopped) return;
      if (!this.#estate && this.#loop.state.mandate.register.mode === 'paired') {
        // Only one that was found is an owner's from the start; and it has gone since.
        this.#loop.tell({ kind: 'domain-failed', code: 'DOMAIN_GONE', message: 'it was found, and is gone' });
        return;
      }
      this.#open();
      this.#offered = true;
      this.#loop.tell({ kind: 'start', orphaned: false, running: this.#guest?.running ?? false });
    });
  }

  stop(done: () => void): void {
    const { cluster, process } = this.#agent;
    this.#stopped = true;
    this.#client.aborted = true;
    this.#loop.tell({ kind: 'stop' });
    this.#offered = false;
    this.#gate?.discard();
    this.#endGuest();
    process.after(cluster.params.makeMs / 4, done);
  }

  /** Null, or the code of the refusal. */
  hello(end: End, hello: Hello): string | null {
    if (!this.#offered) return 'UNKNOWN_DOMAIN';
    if (this.#links.size > 0) return 'ALREADY_LINKED';
    try {
      this.#welcome(end, hello);
      return null;
    } catch (error) {
      if (error instanceof ChannelError) return error.code;
      throw error;
    }
  }

  #welcome(end: End, hello: Hello): void {
    const { cluster, host } = this.#agent;
    const { state } = this.#loop;
    const { windowEpochs, heartbeatIntervalMs, heartbeatTimeoutMs } = cluster.params;
    const terms = {
      name: DOMAIN,
      checkpoint: { windowEpochs },
      heartbeat: { intervalMs: heartbeatIntervalMs, timeoutMs: heartbeatTimeoutMs },
    };
    const judged = judgeHello(hello, terms, INFO, state, host.name, this.#shared);
    // By names that can be had again.
    const streamUuid = `s${++cluster.streams}`;
    const pairing = judged.pairing === judged.streamUuid ? streamUuid : judged.pairing;
    const { continuous, resumes } = judged;
    const welcome = { host: judged.host, streamUuid, pairing, continuous, resumes };
    end.send({ kind: 'welcome', welcome });
    this.#linked(end, hello.host, welcome);
    this.#from.set(streamUuid, resumes ? hello.shared : null);
  }

  #linked(end: End, peer: string, { streamUuid, pairing }: Greeting): void {
    const { cluster, host } = this.#agent;
    const tell = (event: LifeEvent): void => this.#loop.tell(event);
    const link = new LinkEnd(end, peer, streamUuid, cluster.params, {
      message: (message) => this.#message(streamUuid, message),
      heard: () => {
        if (this.#loop.state.stream?.streamUuid === streamUuid) this.#stream?.heard();
        tell({ kind: 'heard', streamUuid });
      },
      bye: (reason) => tell({ kind: 'bye', streamUuid, reason }),
      lost: (code) => {
        cluster.story?.tell(host.name, `loses its link to ${peer}: ${code}`);
        this.#links.delete(streamUuid);
        this.#from.delete(streamUuid);
        tell({ kind: 'lost', streamUuid, code, message: code });
        this.#stream?.left();
      },
    });
    this.#links.set(streamUuid, link);
    tell({ kind: 'linked', streamUuid, pairing: { standby: peer, stream: pairing } });
  }

  #message(streamUuid: string, message: Message): void {
    if (message.kind !== 'ack' || this.#loop.state.stream?.streamUuid !== streamUuid) return;
    this.#stream?.acknowledged(message.epoch);
  }

  #open(): void {
    const { process, host } = this.#agent;
    const estate = this.#estate ?? this.#agent.makeEstate();
    this.#guest = estate.guest;
    this.#gate = estate.gate;
    const { gate } = estate;
    estate.guest.listener = { process, heard: (count) => gate.push(count) };
    gate.untilMs = () => this.#loop.state.lastAtMs + this.#loop.state.settings.stallMs;
    host.estate = estate;
    estate.crashed = () =>
      process.run('domain', () => this.#loop.tell({ kind: 'domain-crashed', reason: 'a fault' }));
  }

  #perform(effect: LifeEffect): void {
    const { cluster, process, host } = this.#agent;
    switch (effect.kind) {
      case 'start-domain':
        this.#startDomain();
        return;
      case 'let-go':
        this.#endGuest();
        return;
      case 'replicate':
        this.#streams.do(effect.streamUuid);
        return;
      case 'hold':
      case 'pass':
      case 'restart':
      case 'discard':
        if (effect.kind !== 'restart') cluster.story?.tell(host.name, `output: ${effect.kind}`);
        this.#gate?.[effect.kind]();
        return;
      case 'bye':
        this.#links.get(effect.streamUuid)?.bye(effect.reason);
        this.#loop.tell({ kind: 'goodbye', streamUuid: effect.streamUuid, confirmed: false });
        return;
      case 'drop-link':
        this.#links.get(effect.streamUuid)?.destroy(effect.code);
        return;
      case 'write':
        this.#writes.do(effect.write);
        return;
      case 'withdraw':
        this.#offered = false;
        return;
      case 'transition':
        cluster.story?.tell(host.name, `owner: ${effect.reason}`);
        return;
      case 'finished':
        process.after(0, () => this.#finished());
        return;
      case 'halt-domain':
      case 'unhalt-domain':
      case 'expose':
        return; // of disks that both see
      case 'hand-over':
        this.#stream?.handOver();
        return;
      case 'handed-over':
        this.#gate?.settled(() => this.#links.get(effect.streamUuid)?.send({ kind: 'handed-over' }));
        return;
      case 'hand-back':
        this.#handBack();
        return;
      case 'hand-over-settled':
        if (effect.outcome.how === 'done') cluster.switchovers++;
        cluster.story?.tell(host.name, `the switchover: ${effect.outcome.how}`);
        return;
      case 'arm':
        this.#late.arm(effect.delayMs);
        return;
      case 'disarm':
        this.#late.disarm();
        return;
    }
  }

  /** A capture that was given up lets it go on by itself. */
  #handBack(): void {
    const guest = this.#guest;
    this.#agent.process.after(this.#agent.cluster.params.pauseMs, () => {
      if (guest && guest.end === null && !this.#stopped) guest.running = true;
    });
  }

  #startDomain(): void {
    const { cluster, process } = this.#agent;
    const guest = this.#guest;
    if (!guest || guest.running) return;
    process.after(cluster.params.startMs, () => {
      if (guest.end === null) guest.running = true;
    });
  }

  #endGuest(): void {
    const { host } = this.#agent;
    this.#guest?.over('let go');
    if (host.estate?.guest === this.#guest) host.estate = null;
  }

  #replicate(streamUuid: string, done: () => void): void {
    const link = this.#links.get(streamUuid);
    const isLeft = (): boolean => this.#loop.state.stream?.streamUuid !== streamUuid;
    if (isLeft() || !link || !this.#guest || !this.#gate) {
      done();
      return;
    }
    const { cluster, process } = this.#agent;
    if (!this.#shared.begin(streamUuid, this.#from.get(streamUuid) ?? null))
      throw new Error('there is no way from what was shared');
    this.#stream = new Checkpointing({
      cluster,
      process,
      host: this.#agent.host.name,
      link,
      guest: this.#guest,
      shared: this.#shared,
      gate: this.#gate,
      isLeft,
      tell: (event) => this.#loop.tell(event),
      over: () => {
        this.#stream = null;
        done();
      },
    });
  }

  #write(write: RegisterWrite, done: () => void): void {
    const answer = (outcome: { won: boolean; register: Register | null }): void => {
      if (!this.#client.aborted) this.#loop.tell({ kind: 'answered', token: write.token, ...outcome });
      done();
    };
    if (this.#agent.cluster.plant === 'alone-unasked' && write.claim.mode === 'alone')
      answer({ won: true, register: written(write) });
    else this.#client.settle(write, answer);
  }

  #finished(): void {
    if (this.#stopped) return;
    const { role, mandate } = this.#loop.state;
    const how = role === 'ended' || role === 'fenced' ? role : 'failed';
    const alone = isAlone(mandate);
    this.#news({
      kind: 'owner-over',
      how,
      alone,
      steady: this.#agent.process.nowMs - this.#sinceMs > STEADY_MS,
    });
  }

  #plantReleaseEarly(): void {
    if (this.#agent.cluster.plant !== 'release-early') return;
    const { mandate, role } = this.#loop.state;
    if (role === 'primary' && mandate.asking?.claim.mode === 'paired' && mandate.register.mode === 'alone')
      this.#gate?.pass();
    else if (role === 'primary' && mandate.register.mode === 'paired' && this.#gate?.mode === 'passing')
      this.#gate.hold();
  }
}
