// What of a configuration is let into a trial, and what is refused because somebody could see it.

import { expect } from 'chai';
import { HypervisorError } from '../../../src/hypervisor/port.js';
import { commandLine, type QemuConfig } from '../../../src/hypervisor/qemu/config.js';
import { trialConfig } from '../../../src/hypervisor/qemu/trial-config.js';

const base: QemuConfig = { name: 'web', memoryBytes: 2 ** 24 };

function words(config: Partial<QemuConfig>): string[] {
  return commandLine(trialConfig({ ...base, ...config }), 'standby');
}

function refused(config: Partial<QemuConfig>): HypervisorError {
  try {
    trialConfig({ ...base, ...config });
  } catch (error) {
    if (error instanceof HypervisorError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

describe('qemu: the configuration of a trial', () => {
  it('plugs its cards into nothing', () => {
    const network: QemuConfig['network'] = [
      { id: 'wire', backend: { kind: 'socket', options: 'connect=10.0.0.1:99' } },
      { id: 'nat', backend: { kind: 'user', options: 'net=10.9.0.0/16,hostfwd=tcp::22-:22,smb=/srv' } },
      { id: 'other', backend: { kind: 'socket', options: 'listen=:99' } },
    ];
    const line = words({ network });
    expect(line).to.include('hubport,id=wire,hubid=0');
    expect(line).to.include('user,id=nat,restrict=on,net=10.9.0.0/16');
    expect(line, 'not each other').to.include('hubport,id=other,hubid=2');
    expect(trialConfig({ ...base, network })).to.include({ isolated: false, name: 'web-trial' });
  });

  it('has its taps in a network of its own', () => {
    const network: QemuConfig['network'] = [{ id: 'lan', backend: { kind: 'tap', interface: 'web0' } }];
    expect(trialConfig({ ...base, network })).to.include({ isolated: true });
  });

  it('drops what is written to a shared disk', () => {
    const drive = 'if=none,id=disk,file=/srv/a,,b.img,format=raw';
    const line = words({
      sharedDisks: ['disk'],
      arguments: ['-drive', drive, '-device', 'virtio-blk,drive=disk'],
    });
    expect(line).to.include(`${drive},snapshot=on,file.locking=off,throttling.bps-write=33554432`);
    expect(line).to.include('virtio-blk,drive=disk');
    for (const [given, added] of [
      ['id=disk,file=rbd:pool/web,bps_wr=1', ',snapshot=on'],
      ['id=disk,file=x,file.locking=auto', ',snapshot=on,throttling.bps-write=33554432'],
    ] as const) {
      expect(words({ sharedDisks: ['disk'], arguments: ['-drive', given] })).to.include(given + added);
    }
  });

  it('has its replicated disks elsewhere, and opens nothing of theirs', () => {
    const places = new Map(
      ['a', 'b', 'c'].map((name) => [name, { socket: '/run/x,y', name: `trial-${name}` }]),
    );
    const config = {
      ...base,
      disks: { b: { durability: 'relaxed' as const, preallocate: false } },
      arguments: [
        ...[
          '-drive',
          'if=none,id=a,file=/a,,b.qcow2,format=qcow2,cache=none,aio=native,node-name=n,l2-cache-size=1M',
        ],
        ...['-drive', 'id=b,file=/b,format=raw,bps_wr=7,werror=report,auto-read-only=off'],
        ...['-blockdev', 'driver=file,node-name=f,filename=/c'],
        ...['-blockdev', 'driver=file,node-name=g,filename=/base'],
        ...['-blockdev', '{"driver":"qcow2","node-name":"c","file":"f","backing":"g","discard":"unmap"}'],
        ...['-blockdev', 'driver=raw,node-name=d,file=g,read-only=on'],
        ...['-device', 'virtio-blk-pci,drive=c'],
      ],
    };
    const line = commandLine(trialConfig(config, places), 'standby');
    const at = 'file.driver=nbd,file.server.type=unix,file.server.path=/run/x,,y,file.export';
    expect(line).to.include(
      `if=none,id=a,cache=none,node-name=n,throttling.bps-write=33554432,format=raw,${at}=trial-a`,
    );
    expect(line).to.include(`id=b,bps_wr=7,werror=report,format=raw,${at}=trial-b`);
    const node = line.find((word) => word.includes('trial-c')) ?? '{}';
    expect(JSON.parse(node)).to.deep.equal({
      ...{ driver: 'throttle', 'node-name': 'c', 'throttle-group': 'romulus-pace', discard: 'unmap' },
      file: {
        ...{ driver: 'nbd', server: { type: 'unix', path: '/run/x,y' }, export: 'trial-c' },
        discard: 'unmap',
      },
    });
    expect(line.join(' ')).to.not.include('filename=/c').and.not.include('/a,').and.not.include('file=/b');
    // Somebody else is on it.
    expect(line).to.include('driver=file,node-name=g,filename=/base');
    expect(line).to.include('virtio-blk-pci,drive=c');
  });

  it('leaves a disk that nobody writes as it is', () => {
    const drive = 'file=/srv/web.img,if=virtio,id=disk,readonly=on';
    expect(words({ arguments: ['-drive', drive] })).to.include(drive);
  });

  it('is none where a shared disk cannot be spared', () => {
    for (const given of [
      ['-blockdev', '{"driver":"file","node-name":"disk","filename":"/srv/web.img"}'],
      ['-drive', 'id=disk2,file=x'],
      ['-drive', 'id=other,file=x,,id=disk'],
    ]) {
      const error = refused({ sharedDisks: ['disk'], arguments: given });
      expect(error.code).to.equal('UNSUPPORTED');
      expect(error.facts).to.include({ key: 'sharedDisks', value: 'disk' });
    }
  });

  it('lets through what is read only, and machines', () => {
    const given = [
      ...['-kernel', 'vmlinuz', '-initrd', 'rd', '-append', 'console=ttyS0', '--no-reboot', '-nodefaults'],
      ...['-device', 'isa-debug-exit', '-object', 'rng-random,id=r', '-vga', 'none', '-rtc', 'base=utc'],
    ];
    expect(words({ arguments: given }).join(' ')).to.include(given.join(' '));
  });

  const seen: readonly (readonly string[])[] = [
    ['-chardev', 'file,id=a,path=/tmp/a'],
    ['-serial', 'tcp::99,server'],
    ['-monitor', 'stdio'],
    ['--qmp', 'unix:/run/q,server'],
    ['-vnc', ':1'],
    ['-gdb', 'tcp::1'],
    ['-virtfs', 'local,path=/srv'],
    ['-device', 'vfio-pci,host=01:00.0'],
    ['-device', 'driver=vhost-vsock-pci,guest-cid=3'],
    ['-device', 'usb-host,vendorid=1'],
    ['-device', '{"driver":"vfio-pci"}'],
    ['-object', 'memory-backend-file,id=m,mem-path=/srv/m,share=on'],
    ['-object', 'filter-dump,id=f,netdev=lan,file=/tmp/f'],
    ['-vga', 'std'],
    ['-an-option-of-tomorrow', 'x'],
    ['disk.img'],
  ];
  for (const given of seen) {
    it(`is none with ${given.join(' ')}`, () => {
      const error = refused({ arguments: ['-no-reboot', ...given] });
      expect(error.code).to.equal('UNSUPPORTED');
      expect(error.facts['key']).to.equal('arguments');
      expect(given.join(' ')).to.include(String(error.facts['value']).split(' ')[0]?.replace(/^-/, ''));
    });
  }
});
