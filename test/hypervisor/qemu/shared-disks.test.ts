// Two guests, one disk: whatever happens to the link or to an agent, one of them writes. The guest counts on the disk;
// where it is taken over, the count goes back once, to what the checkpoint knows, and never again.

import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import type { RegisterWitness } from '../../../src/failover/register.js';
import { createFileWitness } from '../../../src/failover/witnesses/file/file.js';
import { createMemoryWitness } from '../../../src/failover/witnesses/memory.js';
import type { SourceDomain } from '../../../src/hypervisor/port.js';
import { openSource } from '../../../src/service/hypervisors.js';
import { Agent } from '../../cli/agent.js';
import { agentOn, neverOpened, WatchedHost, WitnessLine, type Reach } from '../../service/hosts.js';
import { Proxy } from '../../service/proxy.js';
import { log } from '../../service/world.js';
import { freePorts } from '../../support/ports.js';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';
import { countingArguments, SharedDisk, withCountingGuest } from './shared-disk.js';
import { StrangeQemu } from './stranger.js';
import { Screen, TEST_NAME, needQemu } from './support.js';

const PATIENCE_MS = 60_000;
/** How long two guests that both run are given to show it: they write a hundred times a second. */
const BOTH_MS = 1500;

const shared = { sharedDisks: ['disk'], fence: 'external' };

describe('qemu: a disk that both hosts see', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  let disk: SharedDisk;
  let options: string[] = [];

  before(function () {
    return needQemu(this);
  });
  beforeEach(async () => {
    const file = path.join(await cleanup.directory(), 'disk');
    disk = await SharedDisk.create(file);
    cleanup.add(() => disk.close());
    await new Promise<void>((ready, failed) => {
      withCountingGuest((image) => {
        options = countingArguments(image, file);
        ready();
        return new Promise((over) => cleanup.add(over));
      }).catch(failed);
    });
  });
  afterEach(() => cleanup.run());

  const managed = () => ({
    ...{ kind: 'qemu', accelerator: 'tcg', memory: '16MiB', ...shared },
    arguments: options,
  });
  /** `hypervisor`: on north. */
  const domains = (hypervisor: Record<string, unknown>) => [
    {
      ...{ name: TEST_NAME, hosts: { north: { hypervisor }, south: { hypervisor: managed() } } },
      checkpoint: { intervalMs: 20, slab: '4MiB' },
      heartbeat: { intervalMs: 50, timeoutMs: 400 },
      failover: { redialMinMs: 10, redialMaxMs: 100 },
      output: { console: 'none' },
    },
  ];

  /** North. */
  class Primary extends WatchedHost {
    readonly registers: RegisterWitness;
    readonly line: WitnessLine;
    readonly #made: { domain: SourceDomain | null };

    constructor(hypervisor: Record<string, unknown> = managed(), registers = createMemoryWitness()) {
      const made: { domain: SourceDomain | null } = { domain: null };
      const line = new WitnessLine(registers);
      const agent = agentOn(
        'north',
        { port: 0, registers: line, domains: domains(hypervisor) },
        {
          log,
          openSource: async (config) => (made.domain = await openSource(config)),
          openTarget: neverOpened,
        },
      );
      super(agent);
      this.registers = registers;
      this.line = line;
      this.#made = made;
      cleanup.add(() => agent.stop());
    }

    behind(port: number): Reach {
      return { port, registers: this.registers };
    }

    async progress(): Promise<void> {
      const before = this.checkpoints.length;
      await until('checkpoints', () => this.checkpoints.length > before + 5, PATIENCE_MS);
    }

    /** Null: it was not made. */
    async runState(): Promise<string | null> {
      return (await this.#made.domain?.info())?.state ?? null;
    }
  }

  async function secondaryOf({ port, registers }: Reach): Promise<WatchedHost> {
    const dependencies = { log, openConsole: () => new Screen() };
    const agent = agentOn('south', { port, registers, domains: domains(managed()) }, dependencies);
    cleanup.add(() => agent.stop());
    const secondary = new WatchedHost(agent);
    await agent.start();
    return secondary;
  }

  async function pair(): Promise<{ primary: Primary; proxy: Proxy; secondary: WatchedHost }> {
    const primary = new Primary();
    await primary.service.start();
    const proxy = new Proxy(primary.service.port);
    const port = await proxy.listen();
    cleanup.add(() => proxy.close());
    const secondary = await secondaryOf(primary.behind(port));
    await primary.progress();
    await until('the guest counts', () => disk.count > 20, PATIENCE_MS);
    return { primary, proxy, secondary };
  }

  /** The count goes on, and has gone back once at most. */
  async function takenOver({ failovers }: WatchedHost): Promise<void> {
    await until('takeover', () => failovers.length === 2, PATIENCE_MS);
    expect(failovers.map(({ phase }) => phase)).to.deep.equal(['started', 'completed']);
    await sleep(BOTH_MS);
    const { count } = disk;
    await until('the count goes on', () => disk.count > count, PATIENCE_MS);
    expect(disk.steps, 'steps back').to.be.at.most(1);
  }

  /** North's agent in a process of its own. */
  async function agentOf(hypervisor: Record<string, unknown>) {
    const registers = await cleanup.directory();
    const [port = 0, other = 0] = await freePorts(2);
    const at = (number: number) => ({ address: '127.0.0.1', port: number });
    const agent = await Agent.start(cleanup, 'north', {
      ...{ witness: { kind: 'file', directory: registers }, domains: domains(hypervisor) },
      ...{ hosts: { north: at(port), south: at(other) }, http: false },
      control: path.join(registers, 'north.sock'),
    });
    await agent.listening();
    return { agent: agent.process, port, registers };
  }

  /** Of an agent in another process. */
  function witnessIn(directory: string): RegisterWitness {
    const witness = createFileWitness({ directory });
    cleanup.add(() => witness.close());
    return witness;
  }

  async function attached(): Promise<{ qemu: StrangeQemu; section: Record<string, unknown> }> {
    const qemu = await StrangeQemu.start(options);
    cleanup.add(() => qemu.kill());
    return { qemu, section: { kind: 'qemu', qmp: qemu.monitor, ...shared } };
  }

  async function protectedBy(reach: Reach): Promise<WatchedHost> {
    const secondary = await secondaryOf(reach);
    await until('commits', () => secondary.commits.length > 10, PATIENCE_MS);
    return secondary;
  }

  it('a partition: the primary’s guest stands still before the secondary’s runs, and is ended when it sees that', async () => {
    const { primary, proxy, secondary } = await pair();
    const states: Promise<string | null>[] = [];
    secondary.service.failover$.subscribe(() => states.push(primary.runState()));
    primary.line.isCut = true;
    proxy.mode = 'silent';
    await takenOver(secondary);
    expect(await Promise.all(states)).to.deep.equal(['suspended', 'suspended']);
    primary.line.isCut = false;
    await until('it is ended', () => primary.was('fenced'), PATIENCE_MS);
    expect(disk.steps).to.be.at.most(1);
  });

  it('the secondary alone sees the link reset, and nobody answers: it waits until the primary must have noticed', async () => {
    const { primary, proxy, secondary } = await pair();
    primary.line.isCut = true;
    proxy.mode = 'silent';
    proxy.reset();
    await takenOver(secondary);
  });

  it('the link is lost for a moment: the guest goes on by itself, on the primary', async () => {
    const { primary, proxy, secondary } = await pair();
    for (const lose of [() => proxy.cut(), () => proxy.reset(), () => proxy.cut()]) {
      lose();
      await until('unlinked', () => primary.status().link !== 'replicating', PATIENCE_MS);
      await primary.progress();
      const { count } = disk;
      await until('the count goes on', () => disk.count > count + 5, PATIENCE_MS);
    }
    expect(disk.steps).to.equal(0);
    expect(secondary.failovers).to.deep.equal([]);
  });

  it('the secondary takes its leave: the guest runs on', async () => {
    const { primary, secondary } = await pair();
    await secondary.service.stop();
    await until('unlinked', () => primary.status().link === 'down', PATIENCE_MS);
    const { count } = disk;
    await until('the count goes on', () => disk.count > count + 50, PATIENCE_MS);
    expect(disk.steps).to.equal(0);
  });

  it('the agent of a QEMU that is ours is killed: its last write is done before the secondary’s first', async () => {
    const { agent, ...reach } = await agentOf(managed());
    const secondary = await protectedBy(reach);
    agent.kill('SIGKILL');
    await takenOver(secondary);
  });

  it('the agent of a QEMU that is ours is killed and started again: it boots no second guest', async () => {
    const { agent, port, registers } = await agentOf(managed());
    const proxy = new Proxy(port);
    const secondary = await protectedBy({ port: await proxy.listen(), registers });
    cleanup.add(() => proxy.close());
    agent.kill('SIGKILL');
    const next = new Primary(managed(), witnessIn(registers));
    await next.service.start();
    proxy.target = next.service.port;
    await takenOver(secondary);
    expect(await next.runState()).to.equal(null);
    expect(disk.steps).to.be.at.most(1);
  });

  it('the agent of an attached QEMU is killed: the guest is stopped, also for the agent that comes next', async () => {
    const { qemu, section } = await attached();
    const { agent, ...reach } = await agentOf(section);
    const secondary = await protectedBy(reach);
    agent.kill('SIGKILL');
    const next = new Primary(section, witnessIn(reach.registers));
    // It does not know whose the guest is.
    next.line.isCut = true;
    await next.service.start();
    await takenOver(secondary);
    expect(await qemu.isRunning()).to.equal(false);
    next.line.isCut = false;
    await until('it knows', () => next.status().register?.owner === 'south', PATIENCE_MS);
    await next.service.stop();
    expect(await qemu.isRunning()).to.equal(false);
    expect(disk.steps).to.be.at.most(1);
  });

  it('the agent of an attached QEMU is killed, and nobody comes: the guard stops the guest', async () => {
    const { qemu, section } = await attached();
    const { agent, ...reach } = await agentOf(section);
    const secondary = await protectedBy(reach);
    // As a supervisor does that ends whatever an agent leaves behind.
    for (const guard of qemu.guards()) process.kill(guard, 'SIGTERM');
    agent.kill('SIGKILL');
    await takenOver(secondary);
    expect(await qemu.isRunning()).to.equal(false);
    await until('the guard has done its work', () => !qemu.isGuarded());
  });

  it('the agent of an attached QEMU is killed that no secondary protects: the guest runs on', async () => {
    const { qemu, section } = await attached();
    const { agent, registers } = await agentOf(section);
    await until('the guest is attached to', () => qemu.isGuarded(), PATIENCE_MS);
    agent.kill('SIGKILL');
    await until('the guard has done its work', () => !qemu.isGuarded());
    expect(await qemu.isRunning()).to.equal(true);
    const next = new Primary(section, witnessIn(registers));
    await next.service.start();
    const { count } = disk;
    await until('the count goes on', () => disk.count > count + 10, PATIENCE_MS);
    await next.service.stop();
    expect(await qemu.isRunning()).to.equal(true);
  });

  it('a QEMU of ours that would outlive its agent is refused', async () => {
    const before = process.env['PATH'];
    const binary = process.execPath;
    try {
      process.env['PATH'] = await cleanup.directory();
      const primary = new Primary({ ...managed(), binary });
      await primary.service.start();
      await until('it is refused', () => primary.was('failed'), PATIENCE_MS);
      expect(primary.history.find(({ role }) => role === 'failed')?.error?.message).to.include('setpriv');
    } finally {
      process.env['PATH'] = before;
    }
  });

  it('nobody answers the goodbye of an attached guest’s agent: it is stopped, and said how to undo that', async () => {
    const { qemu, section } = await attached();
    const primary = new Primary(section);
    await primary.service.start();
    const proxy = new Proxy(primary.service.port);
    const secondary = await protectedBy(primary.behind(await proxy.listen()));
    cleanup.add(() => proxy.close());
    primary.line.isCut = true;
    proxy.mode = 'silent';
    await primary.service.stop();
    expect(await qemu.isRunning()).to.equal(false);
    await takenOver(secondary);
    await secondary.service.stop();
    await qemu.ask(async (qmp) => {
      for (const command of ['chardev-remove romulus-exposed', 'cont']) {
        expect(await qmp.human(command)).to.equal('');
      }
    });
    expect(await qemu.isRunning()).to.equal(true);
  });
});
