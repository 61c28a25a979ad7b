// Calls Apache's client for OpenWhisk, as each line of standard input says: [resource, method, options].
// Each answer is a line too: {"value": ...}, or {"error": message, "status": ..., "body": ...}.
const readline = require('readline')
const openwhisk = require('openwhisk')

const client = openwhisk(JSON.parse(process.argv[2]))

async function answer (line) {
  const [resource, method, options] = JSON.parse(line)
  if (options.zip) {
    options.action = Buffer.from(options.zip, 'base64')
    delete options.zip
  }
  try {
    return { value: await client[resource][method](options) }
  } catch (error) {
    return { error: error.message, status: error.statusCode, body: error.error }
  }
}

async function main () {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write(JSON.stringify(await answer(line)) + '\n')
  }
}

main()
