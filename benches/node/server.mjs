// What people write themselves: logical replication to Server-Sent Events, in a page of JavaScript.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const require = createRequire(process.env.NODE_SERVER_PACKAGES + '/');
const { LogicalReplicationService, PgoutputPlugin } = require('pg-logical-replication');

const clients = new Set();
const port = Number(process.env.PORT);

createServer((request, response) => {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  response.write(': hello\n\n');
  clients.add(response);
  request.on('close', () => clients.delete(response));
}).listen(port, '127.0.0.1');

const service = new LogicalReplicationService(
  { connectionString: process.env.DATABASE_URL },
  { acknowledge: { auto: true, timeoutSeconds: 1 } },
);
const plugin = new PgoutputPlugin({ protoVersion: 1, publicationNames: ['bench'] });
service.on('data', (lsn, message) => {
  if (message.tag !== 'insert') return;
  const frame = `id: ${lsn}\nevent: insert\ndata: ${JSON.stringify(message.new)}\n\n`;
  for (const client of clients) client.write(frame);
});
service.on('error', (error) => {
  console.error(error);
  process.exit(1);
});
await service.subscribe(plugin, process.env.SLOT);
