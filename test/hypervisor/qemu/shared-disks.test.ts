// Two guests, one disk: whatever happens to the link or to an agent, one of them writes. The guest counts on the disk;
// where it is taken over, the count goes back once, to what the checkpoint knows, and never again.

import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import type { SupervisorMessage } from '../../../src/cli/supervisor.js';
import { parsePrimaryConfig, parseSecondaryConfig } from '../../../src/config/load.js';
import type { SourceDomain } from '../../../src/hypervisor/port.js';
import { openSource } from '../../../src/service/hypervisors.js';
import { createPrimaryService } from '../../../src/service/primary-service.js';
import type { FailoverEvent, PrimaryService, SecondaryService } from '../../../src/report/reports.js';
import { createSecondaryService } from '../../../src/service/secondary-service.js';
import { Proxy } from '../../service/proxy.js';
import { log } from '../../service/world.js';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';
import { countingArguments, SharedDisk, withCountingGuest } from './shared-disk.js';
import { StrangeQemu } from './stranger.js';
import { Screen, TEST_NAME, needQemu } from './support.js';

const COMMAND = fileURLToPath(new URL('../../../src/cli/main.js', import.meta.url));
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
  const primaryConfig = (hypervisor: Record<string, unknown>) => ({
    listen: { port: 0 },
    http: false,
    domains: [
      {
        name: TEST_NAME,
        hypervisor,
        checkpoint: { intervalMs: 20, slab: '4MiB' },
        heartbeat: { intervalMs: 50, timeoutMs: 400 },
        output: { console: 'none' },
      },
    ],
  });

  class Primary {
    checkpoints = 0;
    domain: SourceDomain | null = null;
    readonly service: PrimaryService;

    constructor(hypervisor: Record<string, unknown> = managed()) {
      this.service = createPrimaryService(parsePrimaryConfig(primaryConfig(hypervisor)), {
        log,
        openSource: async (config) => (this.domain = await openSource(config)),
      });
      this.service.checkpoints$.subscribe(() => this.checkpoints++);
      cleanup.add(() => this.service.stop());
    }

    async progress(): Promise<void> {
      const before = this.checkpoints;
      await until('checkpoints', () => this.checkpoints > before + 5, PATIENCE_MS);
    }

    async runState(): Promise<string | undefined> {
      return (await this.domain?.info())?.state;
    }
  }

  interface Secondary {
    readonly service: SecondaryService;
    readonly failovers: FailoverEvent[];
  }

  async function secondaryOf(port: number): Promise<Secondary> {
    const service = createSecondaryService(
      parseSecondaryConfig({
        http: false,
        domains: [
          {
            name: TEST_NAME,
            primary: `ws://127.0.0.1:${port}`,
            hypervisor: managed(),
            failover: { redialMinMs: 10, redialMaxMs: 100 },
          },
        ],
      }),
      { log, openConsole: () => new Screen() },
    );
    const failovers: FailoverEvent[] = [];
    service.failover$.subscribe((event) => failovers.push(event));
    cleanup.add(() => service.stop());
    await service.start();
    return { service, failovers };
  }

  async function pair(): Promise<{ primary: Primary; proxy: Proxy; secondary: Secondary }> {
    const primary = new Primary();
    await primary.service.start();
    const proxy = new Proxy(primary.service.port);
    const port = await proxy.listen();
    cleanup.add(() => proxy.close());
    const secondary = await secondaryOf(port);
    await primary.progress();
    await until('the guest counts', () => disk.count > 20, PATIENCE_MS);
    return { primary, proxy, secondary };
  }

  /** The count goes on, and has gone back once at most. */
  async function takenOver({ failovers }: Secondary): Promise<void> {
    await until('takeover', () => failovers.length === 2, PATIENCE_MS);
    expect(failovers.map(({ phase }) => phase)).to.deep.equal(['started', 'completed']);
    await sleep(BOTH_MS);
    const { count } = disk;
    await until('the count goes on', () => disk.count > count, PATIENCE_MS);
    expect(disk.steps, 'steps back').to.be.at.most(1);
  }

  async function agentOf(
    hypervisor: Record<string, unknown>,
  ): Promise<{ agent: ChildProcess; port: number }> {
    const file = path.join(await cleanup.directory(), 'primary.json');
    await writeFile(file, JSON.stringify({ ...primaryConfig(hypervisor), log: { level: 'fatal' } }));
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
      const { kind, port } = message as SupervisorMessage & { port: number };
      if (kind === 'listening') listening.push(port);
    });
    await until('the agent listens', () => listening.length > 0, PATIENCE_MS);
    return { agent, port: listening[0] ?? 0 };
  }

  async function attached(): Promise<{ qemu: StrangeQemu; section: Record<string, unknown> }> {
    const qemu = await StrangeQemu.start(options);
    cleanup.add(() => qemu.kill());
    return { qemu, section: { kind: 'qemu', qmp: qemu.monitor, ...shared } };
  }

  async function protectedBy(port: number): Promise<Secondary> {
    const secondary = await secondaryOf(port);
    let commits = 0;
    secondary.service.commits$.subscribe(() => commits++);
    await until('commits', () => commits > 10, PATIENCE_MS);
    return secondary;
  }

  it('a partition: the primary’s guest stands still before the secondary’s runs, and is ended when it is seen', async () => {
    const { primary, proxy, secondary } = await pair();
    const states: Promise<string | undefined>[] = [];
    secondary.service.failover$.subscribe(() => states.push(primary.runState()));
    proxy.mode = 'silent';
    await takenOver(secondary);
    expect(await Promise.all(states)).to.deep.equal(['suspended', 'suspended']);
    proxy.mode = 'forward';
    proxy.cut();
    await primary.service.finished;
    expect(primary.service.statuses()[0]?.role).to.equal('fenced');
    expect(disk.steps).to.be.at.most(1);
  });

  it('the secondary alone sees the link reset, and nobody answers: it waits until the primary must have noticed', async () => {
    const { proxy, secondary } = await pair();
    proxy.mode = 'silent';
    proxy.reset();
    await takenOver(secondary);
  });

  it('the link is lost for a moment: the guest goes on by itself, on the primary', async () => {
    const { primary, proxy, secondary } = await pair();
    for (const lose of [() => proxy.cut(), () => proxy.reset(), () => proxy.cut()]) {
      lose();
      await until('unlinked', () => primary.service.statuses()[0]?.link !== 'replicating', PATIENCE_MS);
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
    await until('unlinked', () => primary.service.statuses()[0]?.link === 'down', PATIENCE_MS);
    const { count } = disk;
    await until('the count goes on', () => disk.count > count + 50, PATIENCE_MS);
    expect(disk.steps).to.equal(0);
  });

  it('the agent of a QEMU that is ours is killed: its last write is done before the secondary’s first', async () => {
    const { agent, port } = await agentOf(managed());
    const secondary = await protectedBy(port);
    agent.kill('SIGKILL');
    await takenOver(secondary);
  });

  it('the agent of a QEMU that is ours is killed and started again: it boots no second guest', async () => {
    const { agent, port } = await agentOf(managed());
    const proxy = new Proxy(port);
    const secondary = await protectedBy(await proxy.listen());
    cleanup.add(() => proxy.close());
    agent.kill('SIGKILL');
    const next = new Primary();
    await next.service.start();
    proxy.target = next.service.port;
    await takenOver(secondary);
    // It is another instance of the domain, and is not replaced; but it waits for a secondary that does not come.
    expect(await next.runState()).to.equal('created');
    expect(disk.steps).to.be.at.most(1);
  });

  it('the agent of an attached QEMU is killed: the guest is stopped, also for the agent that comes next', async () => {
    const { qemu, section } = await attached();
    const { agent, port } = await agentOf(section);
    const secondary = await protectedBy(port);
    agent.kill('SIGKILL');
    const next = new Primary(section);
    await next.service.start();
    expect(next.service.statuses()[0]).to.include({ role: 'primary', error: null });
    await takenOver(secondary);
    expect(await next.runState()).to.not.equal('running');
    await next.service.stop();
    expect(await qemu.isRunning()).to.equal(false);
    expect(disk.steps).to.be.at.most(1);
  });

  it('the agent of an attached QEMU is killed, and nobody comes: the guard stops the guest', async () => {
    const { qemu, section } = await attached();
    const { agent, port } = await agentOf(section);
    const secondary = await protectedBy(port);
    // As a supervisor does that ends whatever an agent leaves behind.
    for (const guard of qemu.guards()) process.kill(guard, 'SIGTERM');
    agent.kill('SIGKILL');
    await takenOver(secondary);
    expect(await qemu.isRunning()).to.equal(false);
    await until('the guard has done its work', () => !qemu.isGuarded());
  });

  it('the agent of an attached QEMU is killed that no secondary protects: the guest runs on', async () => {
    const { qemu, section } = await attached();
    const { agent } = await agentOf(section);
    agent.kill('SIGKILL');
    await until('the guard has done its work', () => !qemu.isGuarded());
    expect(await qemu.isRunning()).to.equal(true);
    const next = new Primary(section);
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
      expect(primary.service.statuses()[0]?.error?.message).to.include('setpriv');
    } finally {
      process.env['PATH'] = before;
    }
  });

  it('nobody answers the goodbye of an attached guest’s agent: it is stopped, and said how to undo that', async () => {
    const { qemu, section } = await attached();
    const primary = new Primary(section);
    await primary.service.start();
    const proxy = new Proxy(primary.service.port);
    const secondary = await protectedBy(await proxy.listen());
    cleanup.add(() => proxy.close());
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
