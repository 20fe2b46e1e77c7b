// Reading an accepted socket into one piece of memory, and what is done where Node does not let us.

import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { readInto } from '../../../../src/hypervisor/qemu/disks/nbd/read-into.js';
import { Cleanup } from '../../../support/cleanup.js';
import { until } from '../../../support/until.js';

describe('qemu disks: reading into one piece of memory', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());
  let server: Server;
  let client: Socket;
  let accepted: Socket;

  beforeEach(async () => {
    server = createServer({ pauseOnConnect: true });
    cleanup.add(() => server.close());
    const path = `${await cleanup.directory()}/socket`;
    server.listen(path);
    await once(server, 'listening');
    client = connect(path);
    cleanup.add(() => client.destroy());
    [accepted] = (await once(server, 'connection')) as [Socket];
  });

  it('all that is read is in it, and no more is read while the socket is paused', async () => {
    const memory = Buffer.alloc(1000);
    const read: Buffer[] = [];
    const socket = readInto(accepted, memory, (octets) => {
      expect(octets.buffer).to.equal(memory.buffer);
      read.push(Buffer.from(octets));
      socket.pause();
    });
    expect(socket, 'this Node lets us').to.not.equal(accepted);
    cleanup.add(() => socket.destroy());
    const sent = Buffer.from(Array.from({ length: 2500 }, (_, i) => i & 0xff));
    client.write(sent);
    socket.resume();
    await until('a first piece', () => read.length === 1);
    const first = Buffer.from(memory);
    socket.write('echo');
    await once(client, 'data'); // it has had its turn, and did not read
    expect([read.length, memory.equals(first)]).to.deep.equal([1, true]);
    socket.resume();
    await until('a second', () => read.length === 2);
    socket.resume();
    await until('the rest', () => read.length === 3);
    expect(Buffer.concat(read).equals(sent)).to.equal(true);
  });

  it('the server counts it until it is closed, whoever closes it', async () => {
    const count = promisify(server.getConnections.bind(server));
    const socket = readInto(accepted, Buffer.alloc(100), () => undefined);
    const closed = once(socket, 'close');
    socket.resume();
    expect(await count()).to.equal(1);
    client.end();
    await closed;
    expect([await count(), accepted.destroyed]).to.deep.equal([0, true]);
  });

  it('where there is no handle it is read as any other', async () => {
    const stream = new PassThrough();
    const read: Uint8Array[] = [];
    const socket = readInto(stream as unknown as Socket, Buffer.alloc(10), (octets) => read.push(octets));
    expect(socket).to.equal(stream);
    stream.write('something');
    await until('it is read', () => read.length === 1);
    expect(Buffer.concat(read).toString()).to.equal('something');
    accepted.destroy();
  });
});
