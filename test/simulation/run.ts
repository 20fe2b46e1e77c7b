// One run: the hosts that the seed draws, the faults that it draws, and the checkers. The same seed is the same run.
//
//   boot ─▶ fault ─▶ fault … ─▶ all over ─▶ heard and protected again: good
//                └──────────────────────┴─▶ a checker says what is wrong

import { pick, seeded, type Random } from '../support/random.js';
import { checkBounds } from './checkers/bounds.js';
import { History } from './checkers/history.js';
import { Liveness } from './checkers/liveness.js';
import { Loss } from './checkers/loss.js';
import { CRASHES, OF_WITNESS, drawFaults, inflict, type Fault, type FaultKind } from './faults.js';
import type { LifeState } from '../../src/primary/life-state.js';
import type { Cluster } from './host/cluster.js';
import { Host } from './host/host.js';
import { Owner } from './host/owner.js';
import { Standby } from './host/standby.js';
import { drawHosts, drawParams } from './params.js';
import type { Plant } from './plants.js';
import { Transcript } from './story.js';
import { Clock } from './world/clock.js';
import { Network } from './world/network.js';
import { SimulatedWitness } from './world/witness.js';

export interface RunResult {
  readonly seed: number;
  /** Null: all is well. */
  readonly violation: string | null;
  readonly simulatedMs: number;
  readonly takeovers: number;
  /** Streams that went on from what both had. */
  readonly resumed: number;
  readonly switchovers: number;
  readonly protections: number;
  readonly forced: number;
  readonly faults: Readonly<Partial<Record<FaultKind, number>>>;
  /** Empty, if it was not asked for. */
  readonly story: readonly string[];
}

const CHECK_MS = 50;
/** A fault that waits until the domain is protected waits no longer. */
const PATIENCE_MS = 15_000;
const LIMITS = { heardMs: 12_000, protectedMs: 40_000 };
/** An operator who was not heard says it again. */
const FORCE_AGAIN_MS = 3000;
/** The longest that a kernel waits before it sends again. */
const LATENT_MS = 1700;
const EVENTS_MAX = 400_000;

export function run(seed: number, plant: Plant | null = null, tells = false): RunResult {
  return new Run(seed, plant, tells).result();
}

class Run {
  readonly #seed: number;
  readonly #random: Random;
  readonly #cluster: Cluster;
  readonly #hosts: Host[] = [];
  readonly #transcript: Transcript | null;
  readonly #liveness: Liveness;
  readonly #faults: Fault[];
  readonly #counts: Partial<Record<FaultKind, number>> = {};
  #active = 0;
  #latentUntilMs = 0;
  #protections = 0;
  #wasProtected = false;
  #forced = 0;
  #forcedMs = -Infinity;
  #over = false;
  #healed = false;

  constructor(seed: number, plant: Plant | null, tells: boolean) {
    this.#seed = seed;
    const random = seeded(seed);
    this.#random = random;
    const params = drawParams(random);
    const clock = new Clock();
    const network = new Network(random, params.latencyMs);
    const witness = new SimulatedWitness(clock, network, random);
    const history = new History();
    const loss = new Loss(history);
    this.#transcript = tells
      ? new Transcript(
          () => clock.nowMs,
          () => witness.register,
        )
      : null;
    this.#liveness = new Liveness(history, LIMITS);
    const common = { params, clock, random, network, witness, history, loss, plant };
    this.#cluster = {
      ...common,
      story: this.#transcript,
      hosts: [],
      streams: 0,
      takeovers: 0,
      resumed: 0,
      switchovers: 0,
      refused: () => this.#refused(),
    };
    witness.wrote = ({ owner, token, mode }, before) => {
      const agent = this.#hosts.find(({ name }) => name === owner)?.agent;
      const died = agent?.process.alive !== true || !token.startsWith(`${agent.instance}-`);
      if (before !== null && before.owner !== owner) loss.given(owner, died);
      if (mode === 'alone') loss.alone(died);
    };
    for (const name of drawHosts(random)) {
      const host = new Host(this.#cluster, name, params.attached && name === 'A');
      this.#hosts.push(host);
      this.#cluster.hosts.push(host);
    }
    this.#faults = [...drawFaults(random)];
  }

  result(): RunResult {
    const { clock, history, story, params } = this.#cluster;
    story?.tell('run', `seed ${this.#seed}: ${JSON.stringify(params)}`);
    for (const host of this.#hosts) clock.after(200 * this.#random(), () => host.start());
    clock.after(CHECK_MS, () => this.#check());
    this.#nextFault();
    for (let events = 0; !this.#over && history.violation === null && clock.next(); events++)
      if (events > EVENTS_MAX) history.wrong('it does not come to an end');
    if (history.violation !== null) story?.tell('checker', history.violation);
    return {
      seed: this.#seed,
      violation: history.violation,
      simulatedMs: clock.nowMs,
      takeovers: this.#cluster.takeovers,
      resumed: this.#cluster.resumed,
      switchovers: this.#cluster.switchovers,
      protections: this.#protections,
      forced: this.#forced,
      faults: this.#counts,
      story: this.#transcript?.lines ?? [],
    };
  }

  #check(): void {
    const { clock, history } = this.#cluster;
    const isProtected = this.#isProtected();
    if (isProtected && !this.#wasProtected) this.#protections++;
    this.#wasProtected = isProtected;
    this.#liveness.check(clock.nowMs, this.#isGood(), () => this.#who());
    const agents = this.#hosts.map(({ name, agent }) => ({ name, size: agent?.size ?? 0 }));
    checkBounds(history, clock.waiting, agents);
    if (this.#healed) this.#settle(this.#isGood());
    if (!this.#over) clock.after(CHECK_MS, () => this.#check());
  }

  #settle(isGood: boolean): void {
    if (isGood) this.#over = true;
    else if (this.#isLost()) this.#force();
  }

  /** Where nobody has it any more, and that may be, an operator starts it. */
  #force(): void {
    const { loss, story, history, clock } = this.#cluster;
    const first = this.#hosts.find(({ isAlive, attached }) => isAlive && !attached);
    if (!loss.mayBeLost) history.wrong('nobody has the domain any more');
    if (!first || clock.nowMs - this.#forcedMs < FORCE_AGAIN_MS) return;
    if (this.#forcedMs < 0) this.#forced++;
    this.#forcedMs = clock.nowMs;
    loss.forced();
    story?.tell('operator', `nobody has the domain any more: it is started on ${first.name}`);
    first.agent?.force();
  }

  #nextFault(): void {
    const { clock } = this.#cluster;
    const fault = this.#faults[0];
    if (!fault) {
      this.#allOver();
      return;
    }
    const sinceMs = clock.nowMs;
    const wait = (): void => {
      const ready = fault.waits === 'time' || this.#isGood() || clock.nowMs - sinceMs > PATIENCE_MS;
      if (ready) clock.after(fault.waitMs, () => this.#inflict(fault));
      else clock.after(CHECK_MS, wait);
    };
    wait();
  }

  #inflict(fault: Fault): void {
    this.#faults.shift();
    const { clock, loss, params } = this.#cluster;
    const host = this.#whom(fault.whom);
    const other = pick(
      this.#random,
      this.#hosts.filter((each) => each !== host),
    );
    const isProtected = this.#isProtected() && this.#active === 0 && clock.nowMs > this.#latentUntilMs;
    const undo = inflict(this.#cluster, fault, host, this.#otherOf(host, other));
    const { kind } = fault;
    if (undo) this.#counts[kind] = (this.#counts[kind] ?? 0) + 1;
    // A switchover is no fault: one crash in the midst of it takes nothing away.
    if (undo && kind !== 'switchover') {
      loss.fault(CRASHES.has(kind) ? 'crash' : OF_WITNESS.has(kind) ? 'witness' : 'other', isProtected);
      this.#liveness.fault(clock.nowMs, isProtected);
      this.#active++;
      clock.after(fault.lastsMs, () => {
        undo();
        this.#active--;
        // What a link has missed may end it yet.
        if (!CRASHES.has(kind) && !OF_WITNESS.has(kind))
          this.#latentUntilMs = clock.nowMs + params.heartbeatTimeoutMs + LATENT_MS;
        this.#allOver();
      });
    }
    this.#nextFault();
  }

  /** A copy is lost in the midst of a switchover: with the owner's crash before or behind it, both are. */
  #refused(): void {
    const { clock, loss } = this.#cluster;
    loss.fault('crash', false);
    this.#liveness.fault(clock.nowMs, false);
    if (this.#healed) this.#liveness.healed(clock.nowMs);
  }

  #allOver(): void {
    if (this.#active > 0 || this.#faults.length > 0 || this.#healed) return;
    this.#healed = true;
    this.#liveness.healed(this.#cluster.clock.nowMs);
  }

  #whom(whom: Fault['whom']): Host {
    const { register } = this.#cluster.witness;
    const name = whom === 'owner' ? register?.owner : whom === 'standby' ? register?.standby : null;
    return this.#hosts.find((host) => host.name === name) ?? pick(this.#random, this.#hosts);
  }

  /** Of two that a cut parts, rather those who have to do with each other. */
  #otherOf(host: Host, drawn: Host): Host {
    const { register } = this.#cluster.witness;
    const name = register?.owner === host.name ? register.standby : register?.owner;
    const known = this.#hosts.find((each) => each.name === name && each !== host);
    return known && this.#random() < 0.8 ? known : drawn;
  }

  /** Register, owner and standby agree, and the world hears it. */
  #isProtected(): boolean {
    const owner = this.#runningOwner();
    const { register } = this.#cluster.witness;
    if (owner === null || register?.mode !== 'paired') return false;
    const { stream, mandate, acknowledgedAtMs, lastAtMs } = owner;
    if (!stream || stream.acknowledged < 0) return false;
    // A link that a fault has struck dead already still looks like one.
    if (acknowledgedAtMs === null || lastAtMs - acknowledgedAtMs > this.#acknowledgedWithinMs()) return false;
    const standby = this.#hosts.find(({ name }) => name === register.standby);
    if (!standby?.isAlive || !(standby.agent?.part instanceof Standby) || mandate.asking !== null)
      return false;
    const { phase, held } = standby.agent.part.state;
    return phase === 'linked' && held?.pairing === register.stream && !standby.agent.process.isStopped;
  }

  #acknowledgedWithinMs(): number {
    const { checkpointIntervalMs, pauseMs, commitMs, latencyMs, heartbeatTimeoutMs } = this.#cluster.params;
    return checkpointIntervalMs + pauseMs + 2 * commitMs + 6 * latencyMs + heartbeatTimeoutMs / 8;
  }

  /** Protected; or heard, where there is nobody who could stand by: an attached domain that has come to the other side. */
  #isGood(): boolean {
    if (this.#isProtected()) return true;
    const { register } = this.#cluster.witness;
    if (register?.mode !== 'alone' || this.#runningOwner() === null) return false;
    return this.#hosts.every(({ name, attached }) => name === register.owner || attached);
  }

  /** What the owner is about, if the world hears its domain. */
  #runningOwner(): LifeState | null {
    const { witness, clock, history, params } = this.#cluster;
    if (history.heard === null || clock.nowMs - history.heardMs > 500 + params.heartbeatTimeoutMs)
      return null;
    const owner = this.#hosts.find(({ name }) => name === witness.register?.owner);
    if (!owner?.isAlive || !(owner.agent?.part instanceof Owner)) return null;
    if (owner.agent.process.isStopped || owner.estate?.guest.end !== null) return null;
    return owner.agent.part.state;
  }

  /** By the register, somebody has the domain who has it no more. */
  #isLost(): boolean {
    const { register } = this.#cluster.witness;
    if (register?.mode !== 'paired') return false;
    return this.#hosts.every(({ name, agent, estate }) => {
      if ((estate !== null && name === register.owner) || !agent) return false;
      const { part } = agent;
      // Also of whoever starts what was handed over.
      if (part instanceof Standby) return part.state.held?.pairing !== register.stream;
      return agent.role.phase === 'standby' || agent.role.phase === 'reading';
    });
  }

  #who(): string {
    return this.#hosts
      .map(({ name, agent, isAlive }) => {
        const { part } = agent ?? {};
        const does =
          part instanceof Standby ? part.state.phase : part instanceof Owner ? part.state.role : '';
        return `${name} ${isAlive ? `${agent?.role.phase ?? ''} ${does}` : 'down'}`;
      })
      .join(', ');
  }
}
