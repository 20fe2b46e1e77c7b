// Attaching to a QEMU that somebody else started: what it lacks is named, and whatever becomes of us, its guest goes on.

import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { connect } from 'node:net';
import { expect } from 'chai';
import { attachQemuSource, openQemuTarget, type QemuSource } from '../../../src/hypervisor/qemu/index.js';
import { QmpClient } from '../../../src/hypervisor/qemu/qmp.js';
import {
  Console,
  Replicator,
  TICK_ELF,
  expectCode,
  firstEvent,
  processesWith,
  needQemu,
  ramOf,
  tickGuest,
} from './support.js';

const AGENT = fileURLToPath(new URL('./agent.js', import.meta.url));

describe('qemu: attached', function () {
  let folder: string;
  let qemu: ChildProcess | null = null;
  const domains: QemuSource[] = [];
  before(function () {
    return needQemu(this);
  });
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'romulus-attach-'));
  });
  afterEach(async () => {
    const left = async () => (await readdir(tmpdir())).filter((name) => name.startsWith('romulus-qemu-'));
    for (const domain of domains.splice(0)) await domain.destroy();
    if (qemu !== null && qemu.exitCode === null && qemu.signalCode === null) {
      qemu.kill('SIGKILL');
      await once(qemu, 'close');
    }
    await rm(folder, { recursive: true });
    while ((await left()).length > 0) await sleep(10);
  });
  const path = (name: string): string => join(folder, name);
  const untilThere = async (file: string): Promise<void> => {
    while (
      !(await access(file).then(
        () => true,
        () => false,
      ))
    )
      await sleep(5);
  };
  const start = async (memory: string[]): Promise<void> => {
    qemu = spawn(
      'qemu-system-x86_64',
      [
        ...['-nodefaults', '-display', 'none', '-accel', 'tcg', '-m', '16M', ...memory],
        ...[
          '-qmp',
          `unix:${path('qmp')},server=on,wait=off`,
          '-serial',
          `unix:${path('serial')},server=on,wait=off`,
        ],
        ...['-kernel', TICK_ELF, '-append', 'pages=1024 dirty=100 tick_ms=10'],
      ],
      { stdio: 'ignore' },
    );
    await untilThere(path('serial'));
  };
  const shared = (): string[] => [
    ...['-object', `memory-backend-file,id=romulus-ram,size=16M,mem-path=${path('ram')},share=on`],
    ...['-machine', 'q35,memory-backend=romulus-ram'],
  ];
  const running = async (): Promise<boolean> => {
    const socket = connect(path('qmp'));
    await once(socket, 'connect');
    const qmp = await QmpClient.open(socket);
    const status = (await qmp.execute('query-status')) as { running: boolean };
    qmp.close();
    return status.running;
  };
  const attach = async (): Promise<QemuSource> => {
    const domain = await attachQemuSource({ name: 'test', monitor: path('qmp'), serial: path('serial') });
    domains.push(domain);
    return domain;
  };

  it('replicates, and lets go of a guest that runs', async () => {
    await start(shared());
    const source = await attach();
    const screen = new Console(source);
    expect((await source.info()).state).to.equal('running');
    expect(source.dirtyTracking.way).to.equal('compare');
    await screen.until(() => screen.ticks().length >= 2);
    const target = await openQemuTarget(tickGuest());
    domains.push(target);
    const targetScreen = new Console(target);
    const replicator = new Replicator(source, target);
    await replicator.begin();
    for (let epoch = 0; epoch < 5; epoch++) {
      let ram = Buffer.alloc(0) as Buffer;
      await replicator.checkpoint(() => (ram = ramOf(source)));
      expect(ramOf(target).equals(ram)).to.equal(true);
    }
    await source.suspend();
    await source.destroy();
    expect(await running()).to.equal(true);
    await target.start();
    await targetScreen.until(() => targetScreen.ticks().length >= 3);
    expect(screen.text + targetScreen.text).to.not.include('BAD');
    // Once more, and now QEMU goes.
    const again = await attach();
    const event = firstEvent(again);
    qemu?.kill('SIGKILL');
    expect(await event).to.deep.equal({
      kind: 'crashed',
      reason: 'the connection to QEMU’s monitor is lost',
    });
  });

  it('goes on if we are killed in mid-checkpoint; not if somebody else stopped it', async () => {
    await start(shared());
    for (const [mode, expected] of [
      ['attach-suspended', true],
      ['attach-stopped', false],
    ] as const) {
      const agent = spawn(process.execPath, [AGENT, mode, path('qmp')], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(agent.stdout, 'data');
      agent.kill('SIGKILL');
      await once(agent, 'close');
      while (processesWith('guard.js').some((pid) => processesWith(path('qmp')).includes(pid)))
        await sleep(10);
      expect(await running(), mode).to.equal(expected);
    }
  });

  it('names what is missing', async () => {
    await expectCode(attach(), 'BAD_CONFIGURATION', '-qmp unix:');
    await start([]);
    await expectCode(attach(), 'BAD_CONFIGURATION', '-object memory-backend-file');
    qemu?.kill('SIGKILL');
    if (qemu) await once(qemu, 'close');
    await rm(path('qmp'));
    await rm(path('serial'));
    await start(shared().map((argument) => argument.replace('share=on', 'share=off')));
    await expectCode(attach(), 'BAD_CONFIGURATION', 'share');
    expect(await running()).to.equal(true);
  });
});
