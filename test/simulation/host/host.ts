// A host, and the agent on it (protection/domain.ts): the real role, and one part at a time, which plays it.

import type { RegisterWrite, Register } from '../../../src/failover/register.js';
import {
  initialRole,
  type RoleEffect,
  type RoleEvent,
  type RoleState,
} from '../../../src/protection/role-state.js';
import { stepRole } from '../../../src/protection/role.js';
import type { Random } from '../../support/random.js';
import type { Point } from '../checkers/history.js';
import type { End, Message, Seat } from '../world/connection.js';
import { Gate } from '../world/gate.js';
import { Guest } from '../world/guest.js';
import { Process } from '../world/process.js';
import type { AgentPorts, Cluster, Estate, Hosted, Part } from './cluster.js';
import { InTurn, Loop, OneTimer } from './loop.js';
import { Owner } from './owner.js';
import { RegisterClient } from './register-client.js';
import { Standby } from './standby.js';

const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 5000;

export class Host implements Hosted {
  readonly name: string;
  isUp = true;
  agent: Agent | null = null;
  /** What runs here as the owner's. */
  estate: Estate | null = null;
  readonly attached: boolean;
  readonly #cluster: Cluster;
  #agents = 0;

  constructor(cluster: Cluster, name: string, attached: boolean) {
    this.#cluster = cluster;
    this.name = name;
    this.attached = attached;
  }

  get isAlive(): boolean {
    return this.isUp && this.agent?.process.alive === true;
  }

  start(): void {
    this.isUp = true;
    if (this.agent?.process.alive === true) return;
    this.#cluster.story?.tell(this.name, `its agent starts${this.estate ? ', and finds the domain' : ''}`);
    this.agent = new Agent(this.#cluster, this, `${this.name}${++this.#agents}`);
    this.agent.start();
  }

  /** `power`: nobody tells the others. */
  crash(power: boolean): void {
    const { agent } = this;
    if (!agent?.process.alive) return;
    agent.process.kill();
    if (power) this.isUp = false;
    if (!power) agent.closeAll();
    const outlives = this.attached && !power;
    for (const guest of agent.guests) if (!outlives || guest !== this.estate?.guest) guest.over('crash');
    if (outlives && this.estate) return;
    this.estate = null;
    this.#cluster.loss.ended(this.name, 'crash');
  }
}

export class Agent implements AgentPorts {
  readonly cluster: Cluster;
  readonly host: Host;
  readonly process: Process;
  readonly seat: Seat;
  readonly instance: string;
  readonly guests = new Set<Guest>();
  readonly #ends = new Set<End>();
  readonly #client: RegisterClient;
  readonly #loop: Loop<RoleState, RoleEvent, RoleEffect>;
  readonly #writes: InTurn<RegisterWrite>;
  readonly #changes: InTurn<Change>;
  #part: Part | null = null;
  readonly #retry: OneTimer;
  /** What a plant makes it believe. */
  #believed: Register | null = null;

  constructor(cluster: Cluster, host: Host, instance: string) {
    const { clock, random, hosts, params } = cluster;
    this.cluster = cluster;
    this.host = host;
    this.instance = instance;
    this.process = new Process(clock, random);
    this.seat = {
      host: host.name,
      isUp: () => host.isUp,
      process: this.process,
      opened: (end) => this.#ends.add(end),
      closed: (end) => this.#ends.delete(end),
    };
    this.#client = new RegisterClient(cluster, host.name, this.process);
    const settings = {
      host: host.name,
      hosts: hosts.map(({ name }) => name),
      canStandBy: !host.attached,
      shared: true,
      onCrash: 'restart',
      instance,
      retryMinMs: RETRY_MIN_MS,
      retryMaxMs: RETRY_MAX_MS,
    } as const;
    this.#loop = new Loop<RoleState, RoleEvent, RoleEffect>(initialRole(settings), stepRole, (effect) =>
      this.#perform(effect),
    );
    this.#retry = new OneTimer(this.process, () => this.#loop.tell({ kind: 'timer', timer: 'retry' }));
    this.#writes = new InTurn((write, done) => this.#write(write, done));
    this.#changes = new InTurn((change, done) => this.#change(change, done));
    for (const guest of this.host.estate ? [this.host.estate.guest] : []) this.guests.add(guest);
    if (params.attached) this.#findEstate();
  }

  get role(): RoleState {
    return this.#loop.state;
  }

  get part(): Part | null {
    return this.#part;
  }

  get size(): number {
    const { absent } = this.#loop.state;
    const own = absent.length + this.#writes.size + this.#changes.size + this.#ends.size;
    return own + this.guests.size + this.process.waiting + (this.#part?.size ?? 0);
  }

  start(): void {
    this.process.after(0, () => this.#loop.tell({ kind: 'start', found: this.host.estate !== null }));
  }

  /** The operator knows that nobody else runs it. */
  force(): void {
    this.process.run('operator', () => this.#loop.tell({ kind: 'force' }));
  }

  /** False: the domain is not ours to hand over. */
  handOver(): boolean {
    const part = this.#part;
    if (!(part instanceof Owner)) return false;
    // Not where the witness cannot be asked.
    this.process.run('operator', () =>
      this.#client.read((register) => {
        if (register !== undefined && part === this.#part) part.handOver();
      }),
    );
    return true;
  }

  /** Of a connection that somebody has made to us. */
  receive(end: End, message: Message): void {
    if (message.kind !== 'hello') return;
    const part = this.#part;
    const refusal = part instanceof Owner ? part.hello(end, message.hello) : 'UNKNOWN_DOMAIN';
    if (refusal === null) return;
    end.send({ kind: 'error', code: refusal });
    end.close();
  }

  /** The kernel does that for a process that is dead. */
  closeAll(): void {
    for (const end of [...this.#ends]) end.close();
  }

  /** By somebody on the way: this end hears it, the other end, or both. */
  reset(random: Random): void {
    for (const end of [...this.#ends]) {
      const whom = random();
      if (whom > 0.3) end.send({ kind: 'closed', reset: true });
      if (whom < 0.6) end.reset();
    }
  }

  makeEstate(): Estate {
    const { cluster, host } = this;
    const branch = cluster.history.branch(host.name, null);
    cluster.loss.booted(host.name);
    cluster.story?.tell(host.name, `BOOTS the domain: ${cluster.history.name({ branch, count: 0 })}`);
    return this.#estate({ branch, count: 0 });
  }

  takeOver(from: Point): Estate {
    const { cluster, host } = this;
    const branch = cluster.history.branch(host.name, from);
    cluster.loss.taken(from);
    const estate = this.#estate({ branch, count: from.count });
    const { guest, gate } = estate;
    guest.listener = { process: this.process, heard: (count) => gate.push(count) };
    guest.running = true;
    gate.pass();
    return estate;
  }

  #estate(from: Point): Estate {
    const { name, attached } = this.host;
    const guest = new Guest(this.cluster, name, from, this.cluster.params.bound && !attached);
    this.guests.clear();
    this.guests.add(guest);
    return { guest, gate: this.#gate(guest, from.count), crashed: () => undefined };
  }

  #gate(guest: Guest, released: number): Gate {
    const { cluster, host, process } = this;
    return new Gate({
      process,
      takesMs: cluster.params.gateMs,
      emitted: guest.count,
      released,
      hears: (count) =>
        cluster.history.hears(host.name, { branch: guest.branch, count }, cluster.clock.nowMs),
    });
  }

  /** The gate of what is found holds, as it is when nobody has told it anything. */
  #findEstate(): void {
    const { estate } = this.host;
    if (!estate) return;
    const { guest, gate } = estate;
    this.host.estate = { guest, gate: this.#gate(guest, gate.released), crashed: () => undefined };
  }

  #perform(effect: RoleEffect): void {
    const { cluster, host } = this;
    switch (effect.kind) {
      case 'read':
        this.#read();
        return;
      case 'write':
        this.#writes.do(effect.write);
        return;
      case 'boot':
      case 'inherit':
      case 'stand-by':
      case 'end':
      case 'stop-found':
        this.#changes.do(effect);
        return;
      case 'arm':
        this.#retry.arm(effect.delayMs);
        return;
      case 'disarm':
        this.#retry.disarm();
        return;
      case 'transition':
        cluster.story?.tell(host.name, `${this.#loop.state.phase}: ${effect.reason}`);
        return;
    }
  }

  #read(): void {
    this.#client.read((register) => {
      if (register === undefined)
        this.#loop.tell({ kind: 'register-failed', code: 'TIMEOUT', message: 'no answer' });
      else this.#loop.tell({ kind: 'register', register: this.#plantColdBoot(register) });
    });
  }

  #write(write: RegisterWrite, done: () => void): void {
    const expected = write.expected === null ? null : (this.#believed ?? write.expected);
    this.#client.settle({ ...write, expected }, (outcome) => {
      this.#loop.tell({ kind: 'answered', token: write.token, ...outcome });
      done();
    });
  }

  #plantColdBoot(register: Register | null): Register | null {
    const { cluster, host } = this;
    this.#believed = null;
    if (cluster.plant !== 'cold-boot' || register?.owner !== host.name || register.mode !== 'paired')
      return register;
    this.#believed = register;
    return { ...register, mode: 'alone', standby: null, stream: null };
  }

  #change(change: Change, done: () => void): void {
    const news = (part: () => Part) => (event: RoleEvent) => {
      if (this.#part === part()) this.#loop.tell(event);
    };
    const begin = (part: Part): void => {
      this.#part = part;
      part.begin(done);
    };
    switch (change.kind) {
      case 'end': {
        const ended = (): void => {
          this.#loop.tell({ kind: 'changed' });
          done();
        };
        if (this.#part) this.#part.stop(ended);
        else ended();
        return;
      }
      case 'boot': {
        const owner: Owner = new Owner(
          this,
          change.register,
          this.host.estate,
          news(() => owner),
        );
        begin(owner);
        return;
      }
      case 'inherit': {
        const standby = this.#part;
        const estate = standby instanceof Standby ? standby.bequeath() : null;
        const inherit = (): void => {
          const owner: Owner = new Owner(
            this,
            change.register,
            estate,
            news(() => owner),
          );
          begin(owner);
        };
        if (standby) standby.stop(inherit);
        else inherit();
        return;
      }
      case 'stop-found':
        this.host.estate?.guest.over('let go');
        this.host.estate = null;
        done();
        return;
      case 'stand-by': {
        const standby: Standby = new Standby(
          this,
          () => this.#loop.state.owner,
          news(() => standby),
        );
        begin(standby);
        return;
      }
    }
  }
}

type Change = Extract<RoleEffect, { readonly kind: 'boot' | 'inherit' | 'stand-by' | 'end' | 'stop-found' }>;
