// An attached guest, and both hosts: protected like any other, and never ended by us. What becomes of it depends
// on what the secondary is known to do: it goes on with its network, or without, or is stopped.

import path from 'node:path';
import { expect } from 'chai';
import { pino } from 'pino';
import { createMemoryWitness } from '../../../src/failover/witnesses/memory.js';
import type { RegisterWitness } from '../../../src/failover/register.js';
import { attachQemuSource } from '../../../src/hypervisor/qemu/index.js';
import { Agent } from '../../cli/agent.js';
import { agentOn, WatchedHost, WitnessLine, type Reach } from '../../service/hosts.js';
import { Proxy } from '../../service/proxy.js';
import { log } from '../../service/world.js';
import { freePorts } from '../../support/ports.js';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';
import { announce, World } from './outside.js';
import { StrangeQemu } from './stranger.js';
import { expectCode, successiveTicksOf } from '../support.js';
import { Screen, TICK_ARGUMENTS, needQemu } from './support.js';

describe('qemu: an attached guest and its standby', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  let world: World;
  let qemu: StrangeQemu;
  let said: string[] = [];

  before(function () {
    return needQemu(this);
  });
  beforeEach(async () => {
    said = [];
    world = await World.open();
    cleanup.add(() => world.close());
    qemu = await StrangeQemu.start(StrangeQemu.network(world));
    cleanup.add(() => qemu.kill());
  });
  afterEach(() => cleanup.run());

  /** On north the guest is there already. */
  const domains = () => [
    {
      name: 'web',
      hosts: {
        north: {
          hypervisor: { kind: 'qemu', qmp: qemu.monitor, serial: qemu.serial, network: [{ id: 'lan' }] },
          output: { console: 'none' },
        },
        south: {
          hypervisor: {
            ...{ kind: 'qemu', accelerator: 'tcg', memory: '16MiB', arguments: TICK_ARGUMENTS },
            network: [{ id: 'lan', socket: world.netdev }],
          },
        },
      },
      checkpoint: { intervalMs: 10, slab: '4MiB' },
      heartbeat: { intervalMs: 50, timeoutMs: 400 },
      failover: { redialMinMs: 10, redialMaxMs: 100 },
    },
  ];

  /** North, its registers, and its way to them. */
  interface Primary {
    readonly host: WatchedHost;
    readonly line: WitnessLine;
    readonly registers: RegisterWitness;
  }

  async function primaryOf(registers = createMemoryWitness()): Promise<Primary> {
    const line = new WitnessLine(registers);
    const log = pino({ level: 'warn' }, { write: (line: string) => void said.push(line) });
    const agent = agentOn('north', { port: 0, registers: line, domains: domains() }, { log });
    cleanup.add(() => agent.stop());
    const host = new WatchedHost(agent);
    await agent.start();
    return { host, line, registers };
  }

  /** It is attached to, and let run. */
  async function runningOf(registers = createMemoryWitness()): Promise<Primary> {
    const primary = await primaryOf(registers);
    await until('it runs', () => primary.host.was('primary'), 20_000);
    return primary;
  }

  interface Standby {
    readonly host: WatchedHost;
    readonly screen: Screen;
  }

  /** A standby in a QEMU of ours. */
  async function standbyOf({ port, registers }: Reach): Promise<Standby> {
    const screen = new Screen();
    const dependencies = { log, openConsole: () => screen };
    const agent = agentOn('south', { port, registers, domains: domains() }, dependencies);
    const host = new WatchedHost(agent);
    cleanup.add(() => agent.stop());
    await agent.start();
    return { host, screen };
  }

  async function linked({ host, registers }: Primary, port = host.service.port): Promise<Standby> {
    const standby = await standbyOf({ port, registers });
    await until('checkpoints', () => host.checkpoints.length > 5, 20_000);
    expect(standby.host.status().error).to.equal(null);
    return standby;
  }

  /** A standby that is linked through a network that can fail. */
  async function linkedBehindProxy(primary: Primary): Promise<{ proxy: Proxy; standby: Standby }> {
    const proxy = new Proxy(primary.host.service.port);
    const port = await proxy.listen();
    cleanup.add(() => proxy.close());
    return { proxy, standby: await linked(primary, port) };
  }

  /** North's agent in a process of its own, and a standby that has commits of it. */
  async function agentOf(): Promise<{ agent: Agent; standby: Standby }> {
    const registers = await cleanup.directory();
    const [port = 0, other = 0] = await freePorts(2);
    const at = (number: number) => ({ address: '127.0.0.1', port: number });
    const agent = await Agent.start(cleanup, 'north', {
      ...{ witness: { kind: 'file', directory: registers }, domains: domains() },
      ...{ hosts: { north: at(port), south: at(other) }, http: false },
      control: path.join(registers, 'north.sock'),
    });
    await agent.listening();
    const standby = await standbyOf({ port, registers });
    await until('commits', () => standby.host.commits.length > 20, 20_000);
    return { agent, standby };
  }

  it('the agent alone is killed: the guest goes on, unheard, also when the filters open by themselves', async () => {
    const { agent, standby } = await agentOf();
    agent.process.kill('SIGKILL');
    await until('takeover', () => standby.host.failovers.length === 2);
    await standby.host.service.stop();
    await until('the guard has done its work', () => !qemu.isGuarded());
    expect(await qemu.isRunning()).to.equal(true);
    expect((await qemu.filters()).sort()).to.deep.equal([
      'romulus-lan-open',
      'romulus-lan-sealed',
      'romulus-lan-valve',
    ]);
    await world.hears(0, () =>
      qemu.ask(async (qmp) => {
        // As their timers do after an hour or so of guest time.
        for (const id of ['romulus-lan-open', 'romulus-lan-sealed']) {
          await qmp.execute('qom-set', { path: `/objects/${id}`, property: 'status', value: 'off' });
        }
        await announce(qmp);
      }),
    );
  });

  it('agent and QEMU are killed: the secondary goes on at the next tick', async () => {
    const { agent, standby } = await agentOf();
    agent.process.kill('SIGKILL');
    process.kill(qemu.pid, 'SIGKILL');
    await until('takeover', () => standby.host.failovers.length === 2);
    expect(standby.host.failovers.map(({ phase }) => phase)).to.deep.equal(['started', 'completed']);
    await until('ticks', () => standby.screen.text.split('\n').length > 6);
    expect(successiveTicksOf(standby.screen.text).length).to.be.at.least(5);
  });

  it('the primary is stopped in order: the guest goes on, with its network; nobody takes over', async () => {
    const primary = await primaryOf();
    const standby = await linked(primary);
    await primary.host.service.stop();
    expect(await qemu.isRunning()).to.equal(true);
    expect(await qemu.filters()).to.deep.equal([]);
    await world.hears(1, () => qemu.speak());
    expect(standby.host.failovers).to.deep.equal([]);
    expect(said.join('')).to.not.include('monitor');
  });

  it('there never was a secondary: the guest goes on, and is heard', async () => {
    const primary = await runningOf();
    await primary.host.service.stop();
    expect(await qemu.isRunning()).to.equal(true);
    expect(await qemu.filters()).to.deep.equal([]);
    await world.hears(1, () => qemu.speak());
  });

  it('nobody answers the goodbye: the guest stays held, and the log says how to undo that', async () => {
    const primary = await primaryOf();
    const { proxy, standby } = await linkedBehindProxy(primary);
    primary.line.isCut = true;
    proxy.mode = 'silent';
    await primary.host.service.stop();
    await until('takeover', () => standby.host.failovers.length === 2);
    await standby.host.service.stop();
    expect(await qemu.isRunning()).to.equal(true);
    await world.hears(0, () => qemu.speak());
    const advice = said
      .map((line) => (JSON.parse(line) as { msg: string }).msg)
      .find((msg) => msg.includes('monitor'));
    const commands = /monitor: (.*)$/.exec(advice ?? '')?.[1]?.split(', ') ?? [];
    expect(commands).to.deep.equal([
      'set_link lan on',
      'object_del romulus-lan-valve',
      'object_del romulus-lan-open',
      'object_del romulus-lan-sealed',
      'chardev-remove romulus-lan-valve',
    ]);
    await qemu.ask(async (qmp) => {
      for (const command of commands) expect(await qmp.human(command)).to.equal('');
    });
    await world.hears(1, () => qemu.speak());
  });

  it('fenced: the guest is stopped, and silent', async () => {
    const primary = await primaryOf();
    const { proxy, standby } = await linkedBehindProxy(primary);
    primary.line.isCut = true;
    proxy.mode = 'silent';
    await until('takeover', () => standby.host.failovers.length === 2);
    const { frames } = world;
    primary.line.isCut = false;
    await until('fenced', () => primary.host.was('fenced'));
    await primary.host.service.stop();
    await standby.host.service.stop();
    expect(world.frames).to.be.at.least(frames);
    expect(await qemu.isRunning()).to.equal(false);
    const advice = said.find((line) => line.includes('was stopped, because a secondary runs it')) ?? '';
    expect(advice).to.include('monitor: ');
    await world.hears(0, () => qemu.speak());
    // A supervisor starts the agent again: it does not run here a second time, until somebody says so.
    said = [];
    const again = await primaryOf(primary.registers);
    await until('it is looked at', () => said.length > 0, 20_000);
    await again.host.service.stop();
    await world.hears(0, () => qemu.speak());
    expect(await qemu.isRunning()).to.equal(false);
    const { msg } = JSON.parse(advice) as { msg: string };
    const commands = /monitor: (.*)$/.exec(msg)?.[1]?.split(', ') ?? [];
    await qemu.ask(async (qmp) => {
      for (const command of commands) expect(await qmp.human(command)).to.equal('');
    });
    expect(await qemu.isRunning()).to.equal(true);
    const last = await runningOf();
    await last.host.service.stop();
    expect(await qemu.filters()).to.deep.equal([]);
  });

  it('found held by an agent that is gone: taken over, with the cable plugged in again, and held until it is free', async () => {
    const config = { name: 'web', monitor: qemu.monitor, netdevs: ['lan'] };
    const first = await attachQemuSource(config);
    expect(first.orphaned).to.equal(false);
    await first.start();
    await announce(first.machine.qmp);
    for (const gate of first.gates) await gate.discard();
    expect(await first.leave?.('held')).to.have.length(1);
    const second = await attachQemuSource(config);
    cleanup.add(() => second.destroy());
    expect(second.orphaned).to.equal(true);
    // The test of its gate lets nothing out: nobody has acknowledged what is held.
    await world.hears(0, () => second.start());
    const { qmp } = second.machine;
    await world.hears(0, () => announce(qmp));
    // What was said before the second, its test, and since.
    await world.hears(3, async () => {
      expect(await second.leave?.('free')).to.deep.equal([]);
    });
    expect(await qemu.isRunning()).to.equal(true);
  });

  it('a network card that the configuration does not name is refused, and the guest is as it was', async () => {
    const error = await expectCode(
      attachQemuSource({ name: 'web', monitor: qemu.monitor }),
      'BAD_CONFIGURATION',
      'network: [{ id: lan }]',
    );
    expect(error.facts).to.include({ card: 'door', netdev: 'lan' });
    const unknown = attachQemuSource({ name: 'web', monitor: qemu.monitor, netdevs: ['lan', 'wan'] });
    await expectCode(unknown, 'BAD_CONFIGURATION', 'wan');
    expect(await qemu.isRunning()).to.equal(true);
    expect(await qemu.filters()).to.deep.equal([]);
    await world.hears(1, () => qemu.speak());
  });
});
