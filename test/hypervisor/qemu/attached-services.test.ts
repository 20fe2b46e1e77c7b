// An attached guest through both services: protected like any other, and never ended by us. What becomes of it depends
// on what the secondary is known to do: it goes on with its network, or without, or is stopped.

import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { pino } from 'pino';
import type { SupervisorMessage } from '../../../src/cli/supervisor.js';
import { parsePrimaryConfig, parseSecondaryConfig } from '../../../src/config/load.js';
import { attachQemuSource } from '../../../src/hypervisor/qemu/index.js';
import { createPrimaryService } from '../../../src/service/primary-service.js';
import type { FailoverEvent, PrimaryService, SecondaryService } from '../../../src/report/reports.js';
import { createSecondaryService } from '../../../src/service/secondary-service.js';
import { Proxy } from '../../service/proxy.js';
import { log } from '../../service/world.js';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';
import { announce, World } from './outside.js';
import { StrangeQemu } from './stranger.js';
import { expectCode, successiveTicksOf } from '../support.js';
import { Screen, TICK_ARGUMENTS, needQemu } from './support.js';

const COMMAND = fileURLToPath(new URL('../../../src/cli/main.js', import.meta.url));

describe('qemu: an attached guest through the services', function () {
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

  const primaryConfig = (changes: Record<string, unknown> = {}) => ({
    listen: { port: 0 },
    http: false,
    domains: [
      {
        name: 'web',
        hypervisor: { kind: 'qemu', qmp: qemu.monitor, serial: qemu.serial, network: [{ id: 'lan' }] },
        checkpoint: { intervalMs: 10, slab: '4MiB' },
        heartbeat: { intervalMs: 50, timeoutMs: 400 },
        output: { console: 'none', ...changes },
      },
    ],
  });

  async function primaryOf(changes: Record<string, unknown> = {}): Promise<PrimaryService> {
    const log = pino({ level: 'warn' }, { write: (line: string) => void said.push(line) });
    const primary = createPrimaryService(parsePrimaryConfig(primaryConfig(changes)), { log });
    cleanup.add(() => primary.stop());
    await primary.start();
    return primary;
  }

  interface Standby {
    readonly service: SecondaryService;
    readonly failovers: FailoverEvent[];
    readonly screen: Screen;
  }

  /** A standby in a QEMU of ours, dialling in through a network that can fail. */
  async function secondaryOf(port: number): Promise<Standby> {
    const screen = new Screen();
    const service = createSecondaryService(
      parseSecondaryConfig({
        http: false,
        domains: [
          {
            name: 'web',
            primary: `ws://127.0.0.1:${port}`,
            hypervisor: {
              kind: 'qemu',
              accelerator: 'tcg',
              memory: '16MiB',
              arguments: TICK_ARGUMENTS,
              network: [{ id: 'lan', socket: world.netdev }],
            },
            failover: { redialMinMs: 10, redialMaxMs: 100 },
          },
        ],
      }),
      { log, openConsole: () => screen },
    );
    const standby: Standby = { service, failovers: [], screen };
    service.failover$.subscribe((event) => standby.failovers.push(event));
    cleanup.add(() => service.stop());
    await service.start();
    return standby;
  }

  async function linked(primary: PrimaryService, port = primary.port): Promise<Standby> {
    let checkpoints = 0;
    primary.checkpoints$.subscribe(() => checkpoints++);
    const standby = await secondaryOf(port);
    await until('checkpoints', () => checkpoints > 5, 20_000);
    expect(standby.service.statuses()[0]?.error).to.equal(null);
    return standby;
  }

  async function proxyOf(primary: PrimaryService): Promise<{ proxy: Proxy; port: number }> {
    const proxy = new Proxy(primary.port);
    const port = await proxy.listen();
    cleanup.add(() => proxy.close());
    return { proxy, port };
  }

  /** A primary in a process of its own, and a standby that has commits of it. */
  async function agentOf(): Promise<{ agent: ChildProcess; standby: Standby }> {
    const file = path.join(await cleanup.directory(), 'primary.json');
    await writeFile(file, JSON.stringify({ ...primaryConfig(), log: { level: 'error' } }));
    const agent = fork(COMMAND, ['primary', '--config', file], {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    const gone = once(agent, 'close');
    cleanup.add(async () => {
      agent.kill('SIGKILL');
      await gone;
    });
    const listening: number[] = [];
    agent.on('message', (message) => {
      const { kind, port: told } = message as SupervisorMessage & { port: number };
      if (kind === 'listening') listening.push(told);
    });
    await until('the agent listens', () => listening.length > 0, 20_000);
    const standby = await secondaryOf(listening[0] ?? 0);
    let commits = 0;
    standby.service.commits$.subscribe(() => commits++);
    await until('commits', () => commits > 20, 20_000);
    return { agent, standby };
  }

  it('the agent alone is killed: the guest goes on, unheard, also when the filters open by themselves', async () => {
    const { agent, standby } = await agentOf();
    agent.kill('SIGKILL');
    await until('takeover', () => standby.failovers.length === 2);
    await standby.service.stop();
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
    agent.kill('SIGKILL');
    process.kill(qemu.pid, 'SIGKILL');
    await until('takeover', () => standby.failovers.length === 2);
    expect(standby.failovers.map(({ phase }) => phase)).to.deep.equal(['started', 'completed']);
    await until('ticks', () => standby.screen.text.split('\n').length > 6);
    expect(successiveTicksOf(standby.screen.text).length).to.be.at.least(5);
  });

  it('the primary is stopped in order: the guest goes on, with its network; nobody takes over', async () => {
    const primary = await primaryOf();
    const standby = await linked(primary);
    await primary.stop();
    expect(await qemu.isRunning()).to.equal(true);
    expect(await qemu.filters()).to.deep.equal([]);
    await world.hears(1, () => qemu.speak());
    expect(standby.failovers).to.deep.equal([]);
    expect(said.join('')).to.not.include('monitor');
  });

  it('there never was a secondary: what was held is let out', async () => {
    const primary = await primaryOf();
    await world
      .hears(0, () => primary.stop().then(() => undefined))
      .catch((error: unknown) => {
        // The frames of the gate's own test may be among those let out.
        if (!/to equal/.test(String(error))) throw error;
      });
    expect(await qemu.filters()).to.deep.equal([]);
    await world.hears(1, () => qemu.speak());
  });

  it('nobody answers the goodbye: the guest stays held, and the log says how to undo that', async () => {
    const primary = await primaryOf();
    const { proxy, port } = await proxyOf(primary);
    const standby = await linked(primary, port);
    proxy.mode = 'silent';
    await primary.stop();
    await until('takeover', () => standby.failovers.length === 2);
    await standby.service.stop();
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
    const { proxy, port } = await proxyOf(primary);
    const standby = await linked(primary, port);
    proxy.mode = 'silent';
    await until('takeover', () => standby.failovers.length === 2);
    const frames = world.frames;
    proxy.mode = 'forward';
    proxy.cut();
    await primary.finished;
    expect(primary.statuses()[0]?.role).to.equal('fenced');
    await primary.stop();
    await standby.service.stop();
    expect(world.frames).to.be.at.least(frames);
    expect(await qemu.isRunning()).to.equal(false);
    expect(said.join('')).to.include('was stopped, because a secondary runs it');
    await world.hears(0, () => qemu.speak());
    // A supervisor starts the agent again: it does not run here a second time, until somebody says so.
    const again = await primaryOf({ whenUnprotected: 'pass' });
    expect(again.statuses()[0]).to.include({ role: 'failed' });
    const advice = again.statuses()[0]?.error?.message ?? '';
    expect(advice).to.include('was stopped, because a secondary runs it');
    await again.stop();
    await world.hears(0, () => qemu.speak());
    expect(await qemu.isRunning()).to.equal(false);
    const commands = /monitor: (.*)$/.exec(advice)?.[1]?.split(', ') ?? [];
    await qemu.ask(async (qmp) => {
      for (const command of commands) expect(await qmp.human(command)).to.equal('');
    });
    expect(await qemu.isRunning()).to.equal(true);
    const last = await primaryOf();
    expect(last.statuses()[0]).to.include({ role: 'primary' });
    await last.stop();
    expect(await qemu.filters()).to.deep.equal([]);
  });

  it('output passes unprotected: the guest keeps its network though nobody answers the goodbye', async () => {
    const primary = await primaryOf({ whenUnprotected: 'pass' });
    const { proxy, port } = await proxyOf(primary);
    const standby = await linked(primary, port);
    proxy.mode = 'silent';
    await primary.stop();
    await standby.service.stop();
    expect(await qemu.isRunning()).to.equal(true);
    expect(await qemu.filters()).to.deep.equal([]);
    await world.hears(1, () => qemu.speak());
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
